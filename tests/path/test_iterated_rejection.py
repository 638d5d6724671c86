"""Llama 2's recipe on the review world: iterated rejection sampling with fresh preferences, then PPO.

Touvron et al. 2023, sections 3.2.2 and 3.2.3: each round collects comparisons of the newest model's answers, fits the
reward model to all comparisons so far, keeps the best of K answers to each prompt, and fine-tunes on them; at first on
the last round's alone, later on those of all rounds. PPO comes after the last round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from underhood.align.experience import PolicyPrompt
from underhood.align.rankings import RankedAnswers
from underhood.align.rejection import BestAnswer, sample_best
from underhood.align.reward_model import RewardModel
from underhood.align.rewards import RewardFunction
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.sample import PURE_SAMPLING
from underhood.models.decoder import Decoder
from underhood.path.lib.answer_rows import random_rows, trained
from underhood.path.lib.review_models import (
    PROMPT_TOKENS,
    PROMPTS,
    RANKED_TOGETHER,
    RANKING_BATCH,
    RANKING_EPOCHS,
    golds,
    grouped,
    judge_scale,
    pretrained,
    ranked,
    reward_model,
    sampled_reviews,
    small_spec,
    supervised_model,
)
from underhood.path.lib.review_policies import by_policy_gradient, ppo, proxy_reward
from underhood.path.lib.review_world import ANSWER_TOKENS_MAX, TOKENIZER, prompt_text
from underhood.train.optim import AdamWSpec

Rows = list[tuple[list[int], int]]
"""Ids of prompts with answers, and where the answer begins."""

SEED = 0
ROUNDS, BEST_OF, COMPARED = 3, 8, 1200
QUESTIONS = [
    PolicyPrompt(ids, prompt_text(thing), {"thing": thing}) for thing, ids in PROMPTS.items() for _ in range(20)
]


@dataclass(frozen=True)
class Stages:
    """The start and the models after each round, and the reward model fitted to comparisons of each one's answers."""

    models: list[Decoder]
    rewards: list[RewardModel]


class Judge:
    """Collects comparisons and refits the reward model to all of them."""

    def __init__(self, base: Decoder, start: Decoder):
        self.base, self.rankings = base, list[RankedAnswers]()
        self.scale = judge_scale(sampled_reviews(start, COMPARED, SEED))

    def refitted(self, model: Decoder, number: int) -> RewardModel:
        answers, draw = sampled_reviews(model, COMPARED, SEED + 1000 * number), np.random.default_rng([SEED, number])
        self.rankings += [ranked(group, self.scale, draw) for group in grouped(answers, RANKED_TOGETHER)]
        steps = RANKING_EPOCHS * len(self.rankings) // RANKING_BATCH
        return reward_model(self.base, self.rankings, SEED, steps=steps, batch_size=RANKING_BATCH)


def row_of(best: BestAnswer) -> tuple[list[int], int]:
    answer, prompt = best.answer, PROMPTS[best.prompt.record["thing"]]
    return [*prompt, *TOKENIZER.encode(answer.answer), *[TOKENIZER.end] * answer.finished], PROMPT_TOKENS


def chosen_rows(model: Decoder, reward: RewardFunction, number: int, best_of: int = BEST_OF) -> Rows:
    """The best answers to all questions, to fine-tune on."""
    best = sample_best(
        Engine(model, TOKENIZER, EngineSpec(cache_bytes=8 << 20)),
        QUESTIONS,
        reward,
        TOKENIZER,
        n=best_of,
        max_new_tokens=ANSWER_TOKENS_MAX,
        sampling=PURE_SAMPLING,
        stop_ids=[TOKENIZER.end],
        seed=100 * SEED + number,
    )
    return [row_of(each) for each in best]


def tuned(model: Decoder, kept: Rows, number: int) -> Decoder:
    return trained(model, random_rows(kept, 16, SEED + number), 40, AdamWSpec(lr=1e-3, weight_decay=0.0))


def gold(model: Decoder) -> float:
    """Mean gold reward of 1,200 answers; its standard error is about 0.03."""
    return float(golds(sampled_reviews(model, 1200, 10**6)).mean())


@pytest.fixture(scope="module")
def base() -> Decoder:
    return pretrained(small_spec(32, 1), SEED, steps=100)


@pytest.fixture(scope="module")
def start(base: Decoder) -> Decoder:
    return supervised_model(base, SEED, steps=40)


@pytest.fixture(scope="module")
def stages(base: Decoder, start: Decoder) -> Stages:
    models, judge, kept = [start], Judge(base, start), Rows()
    rewards = [judge.refitted(start, 0)]
    for number in range(ROUNDS):
        kept += chosen_rows(models[-1], proxy_reward(rewards[-1]), number)
        models.append(tuned(models[-1], kept, number))
        rewards.append(judge.refitted(models[-1], number + 1))
    return Stages(models, rewards)


@pytest.mark.slow
def test_every_round_of_rejection_sampling_raises_the_gold_reward_and_ppo_raises_it_further(stages: Stages):
    rewards = [gold(model) for model in stages.models]
    assert (np.diff(rewards) > 0).all(), rewards
    assert rewards[-1] > rewards[0] + 1
    after = by_policy_gradient(stages.models[-1], proxy_reward(stages.rewards[-1]), ppo(0.2), SEED, steps=16, lr=5e-4)
    assert gold(after) > rewards[-1] + 0.05
