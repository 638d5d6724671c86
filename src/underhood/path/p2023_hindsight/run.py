"""Liu, Sferrazza and Abbeel 2023: praise and blame as words of the text, against a known reward."""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from underhood.align.hindsight import hide_past_tokens
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.seed_series import over_seeds

TOPICS, WORDS, KINDS, LENGTH = 4, 8, 2, 4
BAD, GOOD, HIDDEN = range(TOPICS + WORDS, TOPICS + WORDS + 3)
VOCABULARY = TOPICS + WORDS + 3
SUITS = 0.5
"""Share of the words in the data that suit their topic: those of the topic's kind."""
BATCH, PAIRS, ASKED = 64, 4000, 2000


def run(trial: Trial) -> None:
    table: list[list[float]] = []
    for seed in trial.each_seed():
        draw = torch.Generator().manual_seed(seed)
        topic_N, worse_NL, better_NL = judged_pairs(PAIRS, draw)
        steps = trial.by_scale(smoke=500, report=1200)
        swap_N1 = torch.rand(PAIRS, 1, generator=draw) < 0.5
        random = [torch.where(swap_N1, *pair) for pair in ((better_NL, worse_NL), (worse_NL, better_NL))]
        judged = random if trial.ablated("order") else [worse_NL, better_NL]
        model = train(chains(topic_N, *judged), steps, seed)
        topics_M = torch.randint(TOPICS, (ASKED,), generator=draw)
        good, bad = (gold(asked(model, [topics_M, word], draw), topics_M) for word in (GOOD, BAD))
        trial.measure("steers", good - bad)
        if not trial.wants("over_sft"):
            continue
        data = float((gold(worse_NL, topic_N) + gold(better_NL, topic_N)) / 2)
        tuned = train(torch.cat([topic_N[:, None], torch.full((PAIRS, 1), GOOD), better_NL], dim=1), steps, seed)
        best_only = gold(asked(tuned, [topics_M, GOOD], draw), topics_M)
        trial.measure("over_sft", good - best_only)
        trial.measure("data", good - data)
        shuffled = train(chains(topic_N, *random), steps, seed)
        neither = [gold(asked(shuffled, [topics_M, word], draw), topics_M) for word in (GOOD, BAD)]
        trial.measure("random_feedback", neither[0] - neither[1])
        rounds = [good]
        answer_ML = asked(model, [topics_M, GOOD], draw)
        for _ in range(3):
            answer_ML = asked(model, [topics_M, BAD, answer_ML, GOOD], draw)
            rounds.append(gold(answer_ML, topics_M))
        trial.measure("chain", rounds[1] - rounds[0])
        table.append([data, bad, good, best_only, *rounds[1:]])
        better = expected_better()
        agrees = abs(gold(better_NL, topic_N) - better) < 0.02
        trial.oracle(f"seed {seed}: the better answers' reward is the exact expectation", agrees, f"{better:.3f}")
    if table:
        names = ("data", "Bad:", "Good:", "better answers only", "Good: after its own", "twice", "three times")
        trial.plot(
            title="Words that steer reach the better of two answers; a chain goes on",
            x="asked with",
            y="gold reward",
            kind="bars",
            names=names,
            series=[over_seeds("mean and range over seeds", list(map(list, zip(*table, strict=True))))],
            levels=((expected_better(), "the better answers of the data"),),
        )


def judged_pairs(count: int, draw: torch.Generator) -> tuple[Int[Tensor, "N"], Int[Tensor, "N L"], Int[Tensor, "N L"]]:
    """Topics, and for each a worse and a better answer, as the gold reward judges; pairs of equals are drawn anew."""
    topic_M = torch.randint(TOPICS, (2 * count + 200,), generator=draw)
    both = [written(topic_M, draw) for _ in range(2)]
    rewards = [rewards_of(answer, topic_M) for answer in both]
    differ_M = rewards[0] != rewards[1]
    first_is_worse_M1 = (rewards[0] < rewards[1])[:, None]
    worse, better = (torch.where(first_is_worse_M1, *pair)[differ_M][:count] for pair in (both, both[::-1]))
    return topic_M[differ_M][:count], worse, better


def chains(topic_N: Tensor, bad_NL: Tensor, good_NL: Tensor) -> Int[Tensor, "N T"]:
    """Both answers after the words that judge them; the worse comes first in half of the texts.

    Else the word "Good:" would never follow a topic, where it is written when an answer is asked for.
    """
    bad_first_NT, good_first_NT = (
        torch.cat(
            [topic_N[:, None], torch.full_like(bad_NL[:, :1], a), first, torch.full_like(bad_NL[:, :1], b), second], 1
        )
        for a, first, b, second in ((BAD, bad_NL, GOOD, good_NL), (GOOD, good_NL, BAD, bad_NL))
    )
    return bad_first_NT.where(torch.arange(len(topic_N))[:, None] % 2 == 0, good_first_NT)


def written(topic_M: Tensor, draw: torch.Generator) -> Int[Tensor, "M L"]:
    """Answers of the data: each word suits its topic with probability `SUITS`, and is of another kind else."""
    shape = (len(topic_M), LENGTH)
    other_ML = torch.randint(1, KINDS, shape, generator=draw)
    suits_ML = torch.rand(shape, generator=draw) < SUITS
    kind_ML = (topic_M[:, None] + other_ML.masked_fill(suits_ML, 0)) % KINDS
    return TOPICS + kind_ML + KINDS * torch.randint(WORDS // KINDS, shape, generator=draw)


def rewards_of(answer_ML: Tensor, topic_M: Tensor) -> Float[Tensor, "M"]:
    """The gold reward: share of words that suit the topic."""
    is_word_ML = (answer_ML >= TOPICS) & (answer_ML < TOPICS + WORDS)
    return (((answer_ML - TOPICS) % KINDS == topic_M[:, None] % KINDS) & is_word_ML).float().mean(dim=1)


def gold(answer_ML: Tensor, topic_M: Tensor) -> float:
    return float(rewards_of(answer_ML, topic_M).mean())


def expected_better() -> float:
    """The exact expectation of the better of two draws that differ, by enumeration."""
    p = [comb(LENGTH, k) * SUITS**k * (1 - SUITS) ** (LENGTH - k) for k in range(LENGTH + 1)]
    pairs = [(p[i] * p[j], max(i, j) / LENGTH) for i in range(LENGTH + 1) for j in range(LENGTH + 1) if i != j]
    return sum(weight * best for weight, best in pairs) / sum(weight for weight, _ in pairs)


def train(text_NT: Tensor, steps: int, seed: int) -> Decoder:
    """A decoder trained on the texts, with loss on the words of answers only and some past words hidden."""
    spec = qwen3_shaped(vocab_size=VOCABULARY, context_length=24, d_model=32, layers=2, heads=2)
    model, draw = spec.initialize(seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        ids_BT = text_NT[torch.randint(len(text_NT), (BATCH,), generator=draw)]
        answers_BT = (ids_BT >= TOPICS) & (ids_BT < TOPICS + WORDS)
        tokens_BT = hide_past_tokens(ids_BT, answers_BT, hidden_id=HIDDEN, generator=draw)
        learnt_BT = answers_BT[:, 1:]
        loss = F.cross_entropy(model(tokens_BT[:, :-1])[learnt_BT], ids_BT[:, 1:][learnt_BT])
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def asked(model: Decoder, prompt: list[Tensor | int], draw: torch.Generator) -> Int[Tensor, "M L"]:
    """Sampled answers to prompts of topics, words of feedback and earlier answers."""
    count = len(next(piece for piece in prompt if isinstance(piece, Tensor)))
    columns = [torch.full((count, 1), piece) if isinstance(piece, int) else piece.view(count, -1) for piece in prompt]
    ids_MT = torch.cat(columns, dim=1)
    for _ in range(LENGTH):
        ids_MT = torch.cat([ids_MT, model(ids_MT)[:, -1].softmax(-1).multinomial(1, generator=draw)], dim=1)
    return ids_MT[:, -LENGTH:]
