"""The models of the review world, stage by stage: base, supervised, preferences of a noisy judge, reward model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from underhood.align.pairs import Marked
from underhood.align.rankings import RankedAnswers, RankingBatches
from underhood.align.reward_model import RewardLoss, RewardModel, RewardSpec
from underhood.align.sft import SFTLoss
from underhood.core.runlog import RunLog
from underhood.infer.generate import generate
from underhood.infer.sample import SamplingSpec
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.path.lib.answer_rows import answer_rows, random_rows, trained
from underhood.path.lib.noisy_judge import calibrated_scale, golds, noisy_ranking
from underhood.path.lib.review_world import (
    ANSWER_TOKENS_MAX,
    ASPECTS,
    DEMONSTRATOR,
    TOKENIZER,
    WEB,
    demonstrations,
    gold_reward,
    prompt_text,
    web_text,
    written_answer,
)
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec, MuonAdamWSpec
from underhood.train.small_lm import train_small

CONTEXT = 64
WEB_BATCH, TUNING_BATCH = 16, 16
"""Windows of `CONTEXT` tokens in a step of pretraining, and demonstrations in a step of SFT."""

RANKED_TOGETHER, RANKING_BATCH, RANKING_EPOCHS = 4, 16, 2
"""Answers that the judge ranks at once, rankings in a step of the reward model, and how often it reads each."""

THINGS = tuple(ASPECTS)
PROMPTS = {thing: (TOKENIZER.end, *TOKENIZER.encode(prompt_text(thing))) for thing in THINGS}
PROMPT_TOKENS = len(PROMPTS[THINGS[0]])
"""All prompts are equally long."""

Tell = Callable[[float], None]


@dataclass(frozen=True)
class Review:
    """A sampled answer to "how is the THING?".

    Attributes:
        ids: the answer's tokens, the end among them if it ended.
        gold: its gold reward.
    """

    thing: str
    ids: tuple[int, ...]
    finished: bool
    gold: float

    @property
    def text(self) -> str:
        return TOKENIZER.decode(self.ids[:-1] if self.finished else self.ids).strip()

    @property
    def whole(self) -> list[int]:
        """Prompt and answer."""
        return [*PROMPTS[self.thing], *self.ids]

    @property
    def marked(self) -> Marked:
        """Prompt and answer, with the answer marked, as pairs of preferences hold it."""
        return self.whole, [False] * PROMPT_TOKENS + [True] * len(self.ids)

    @property
    def question(self) -> str:
        return self.thing


def small_spec(d_model: int = 48, layers: int = 2) -> DecoderSpec:
    shape = {"d_model": d_model, "layers": layers, "heads": 4, "context_length": CONTEXT}
    return qwen3_shaped(vocab_size=TOKENIZER.vocab_size, tied=True, **shape)


def web_texts(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng([seed, 0])
    return [web_text(draw) for _ in range(count)]


def pretrained(spec: DecoderSpec, seed: int, *, steps: int, texts: int = 4000, tell: Tell | None = None) -> Decoder:
    """A base model: next tokens of web texts in random windows."""
    corpus, rate = web_texts(texts, seed), MuonAdamWSpec(matrix_lr=0.02, lr=0.01)
    return train_small(
        corpus, TOKENIZER, spec, steps=steps, batch_size=WEB_BATCH, seed=seed, optimizer=rate, progress=tell
    )


def web_ids(text: str) -> list[int]:
    """A web text as ids, after an end-of-text token as in pretraining, cut to the context."""
    return [TOKENIZER.end, *TOKENIZER.encode(text)][: CONTEXT + 1]


@torch.no_grad()
def web_loss(model: Decoder, count: int = 400) -> float:
    """Nats per token on web texts that nobody was trained on."""
    rows = answer_rows(
        [([TOKENIZER.end, *TOKENIZER.encode(text)][: CONTEXT + 1], 1) for text in web_texts(count, 10**6)]
    )
    return float(SFTLoss()(model.eval(), rows)[0]) / rows.target_count


def demonstration_rows(seed: int, count: int = 1000) -> list[tuple[list[int], int]]:
    """Demonstrations as ids, and where their answers begin."""
    return [
        ([*PROMPTS[thing], *TOKENIZER.encode(answer), TOKENIZER.end], PROMPT_TOKENS)
        for thing, answer in demonstrations(count, seed)
    ]


def supervised_model(base: Decoder, seed: int, *, steps: int) -> Decoder:
    """SFT: the base model tuned on demonstrations, the loss on answers only."""
    batches = random_rows(demonstration_rows(seed), TUNING_BATCH, seed)
    return trained(base, batches, steps, AdamWSpec(lr=2e-3, weight_decay=0.0))


def supervised_tokens(seed: int, steps: int) -> float:
    """Tokens that so many steps of SFT read, on average."""
    rows = demonstration_rows(seed)
    return steps * TUNING_BATCH * sum(len(ids) for ids, _ in rows) / len(rows)


def sampled_reviews(
    model: Decoder, count: int, seed: int, *, prefix: Sequence[int] = (), stop: Sequence[int] = ()
) -> list[Review]:
    """Answers at temperature 1 about each thing in turn.

    Args:
        prefix: what is read before the prompt (a few-shot prompt).
        stop: further tokens that end an answer, as a stop sequence does.
    """
    things = [THINGS[n % len(THINGS)] for n in range(count)]
    written = generate(
        model.eval(),
        [[*prefix, *PROMPTS[thing]] for thing in things],
        max_new_tokens=ANSWER_TOKENS_MAX,
        sampling=SamplingSpec(temperature=1.0, seed=seed),
        stop_ids=(TOKENIZER.end, *stop),
        batch_size=256,
    )
    reviews: list[Review] = []
    for thing, answer in zip(things, written, strict=True):
        finished = answer.finish == "stop"
        ids = (*answer.ids, TOKENIZER.end) if finished else tuple(answer.ids)
        gold = gold_reward(thing, TOKENIZER.decode(answer.ids), finished)
        reviews.append(Review(thing, ids, finished, gold))
    return reviews


def written_reviews(count: int, seed: int) -> list[Review]:
    """Answers about each thing in turn, half from the web's writers and half from demonstrators."""
    draw, reviews = np.random.default_rng([seed, 3]), list[Review]()
    for number in range(count):
        thing = THINGS[number % len(THINGS)]
        text = written_answer(thing, WEB if draw.random() < 0.5 else DEMONSTRATOR, draw)
        reviews.append(Review(thing, (*TOKENIZER.encode(text), TOKENIZER.end), True, gold_reward(thing, text, True)))
    return reviews


def grouped(reviews: Sequence[Review], size: int) -> list[list[Review]]:
    """Groups of `size` answers to the same question."""
    by_thing = [[review for review in reviews if review.thing == thing] for thing in THINGS]
    return [rows[n : n + size] for rows in by_thing for n in range(0, len(rows) - size + 1, size)]


def judge_scale(reviews: Sequence[Review]) -> float:
    """The calibrated scale for pairs of these answers."""
    gold_N = golds(reviews)
    return calibrated_scale(gold_N[0::2] - gold_N[1::2])


def ranked(group: Sequence[Review], scale: float, draw: np.random.Generator) -> RankedAnswers:
    return RankedAnswers(tuple(review.whole for review in group), noisy_ranking(group, scale, draw))


def reward_model(
    start: Decoder, rankings: Sequence[RankedAnswers], seed: int, *, steps: int, batch_size: int = 32
) -> RewardModel:
    """A reward model that begins as a copy of `start`; its zero is the mean of the answers that it was trained on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RewardSpec().build(copy.deepcopy(start)).train()
    batches = RankingBatches(rankings, batch_size=batch_size, seed=seed)
    optimizer = MuonAdamWSpec(matrix_lr=0.01, lr=0.005).build(model)
    fit(model, batches, RewardLoss(), optimizer, FitSpec(steps=steps), stage="reward", log=RunLog(None))
    model.eval().normalize([text for ranking in rankings[:200] for text in ranking.texts], batch_size=256)
    return model


def pair_rankings(pairs: Sequence[tuple[Review, Review]]) -> list[RankedAnswers]:
    return [RankedAnswers((chosen.whole, rejected.whole), (0, 1)) for chosen, rejected in pairs]


def scores(model: RewardModel, reviews: Sequence[Review]) -> Float[Tensor, "N"]:
    """The reward model's scores."""
    return model.scores([review.whole for review in reviews], batch_size=256)


@dataclass(frozen=True)
class FirstTwoSteps:
    """What the first two steps of InstructGPT leave behind.

    Attributes:
        start: the supervised model.
        answers: its answers, which the judge compared.
        scale: how sharply the judge sees the gold reward.
    """

    start: Decoder
    answers: list[Review]
    scale: float
    reward: RewardModel


def two_steps(base: Decoder, seed: int, *, steps: int, answers: int, random_labels: bool = False) -> FirstTwoSteps:
    """Demonstrations, then comparisons of the supervised model's own answers in rankings of four.

    Args:
        steps: of supervised fine-tuning.
        answers: that are sampled and ranked.
        random_labels: the judge sees nothing.
    """
    start = supervised_model(base, seed, steps=steps)
    written = sampled_reviews(start, answers, seed)
    scale, draw = judge_scale(written), np.random.default_rng([seed, 6])
    rankings = [ranked(group, 0.0 if random_labels else scale, draw) for group in grouped(written, RANKED_TOGETHER)]
    updates = RANKING_EPOCHS * len(rankings) // RANKING_BATCH
    reward = reward_model(base, rankings, seed, steps=updates, batch_size=RANKING_BATCH)
    return FirstTwoSteps(start, written, scale, reward)


FEW_SHOT = ("the {0} is superb .", "the {1} is lovely .")
"""Two answers that the judge likes, as a prompt can show them; longer ones would leave no room in the context."""


def few_shot_prompt() -> list[int]:
    """Two questions with good answers, to be read before the question proper."""
    shown = zip(THINGS, FEW_SHOT, strict=False)
    texts = [f"{prompt_text(thing)} {text.format(*ASPECTS[thing])}" for thing, text in shown]
    return [id for text in texts for id in (TOKENIZER.end, *TOKENIZER.encode(text))]
