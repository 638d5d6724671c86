"""Elhage et al. 2021, Olsson et al. 2022: two attention heads in a row copy what followed last time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.models.copying import begin_copying
from underhood.models.decoder import Decoder
from underhood.path.lib.attention_only import (
    Head,
    attention_only,
    attention_patterns,
    prefix_matching,
    previous_token,
    repeated_blocks,
    silenced,
)
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import MuonAdamWSpec

VOCABULARY, LENGTH, PERIODS, TEST_PERIOD = 64, 64, (8, 32), 32
WIDTH, HEADS, BATCH = 64, 2, 16
INDUCTION = 0.3  # prefix-matching score from which a head counts as an induction head
LEARNT = 1.0  # nats on the second reading below which the copying counts as learnt


@dataclass
class Course:
    """A model, and by steps its loss over a block's first and second reading (nats) and its best head's score."""

    model: Decoder
    steps: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def learnt_at(self) -> float:
        return next((step for step, loss in zip(self.steps, self.second, strict=True) if loss < LEARNT), np.inf)


def run(trial: Trial) -> None:
    courses: dict[str, list[Course]] = {}
    lost: list[float] = []
    for seed in trial.each_seed():
        test_NT = repeated_blocks(
            64, LENGTH, VOCABULARY, (TEST_PERIOD, TEST_PERIOD), torch.Generator().manual_seed(10**6 + seed)
        )
        two = train(trial, 1 if trial.ablated("second_layer") else 2, seed, test_NT)
        courses.setdefault("two layers", []).append(two)
        trial.measure("copies", two.second[-1])
        trial.measure("score", two.score[-1])
        if trial.is_ablation or not trial.wants("together", "removed", "one_layer", "start_score"):
            continue
        trial.measure("previous", float(previous_token(attention_patterns(two.model, test_NT)[0]).mean(dim=0).max()))
        trial.measure("together", float(np.corrcoef(two.score, two.second)[0, 1]))
        trial.measure("sudden", suddenness(two))
        lost.append(removal(trial, two, test_NT)[0])
        single = train(trial, 1, seed, test_NT)
        trial.measure("one_layer", single.second[-1])
        begun = train(trial, 2, seed, test_NT, copying=True)
        trial.measure("start_score", begun.score[0])
        trial.measure("start_gain", begun.first[0] - begun.second[0])
        trial.measure("head_start", begun.learnt_at() / two.learnt_at())
        courses.setdefault("one layer", []).append(single)
        courses.setdefault("two layers, copying start", []).append(begun)
    if lost:
        trial.note(
            f"Silencing the best head alone costs {np.mean(lost):.0%} of the gain: the heads of a layer share the work."
        )
    if not trial.is_ablation:
        show(trial, courses)


def train(trial: Trial, layers: int, seed: int, test_NT: Tensor, *, copying: bool = False) -> Course:
    """Trains an attention-only model on repeated random blocks and watches it on blocks of one length."""
    shape = {"vocab_size": VOCABULARY, "context_length": LENGTH, "d_model": WIDTH, "heads": HEADS}
    model = attention_only(layers=layers, **shape).initialize(seed=seed)
    if copying:
        begin_copying(model, seed=seed, embed_std=0.02)
    optimizer = MuonAdamWSpec(matrix_lr=0.01, lr=0.01).build(model)
    course, steps = Course(model), trial.by_scale(smoke=500, report=600)
    every = steps // 25
    for step in range(steps + 1):
        if step % every == 0:
            watch(course, step, test_NT)
        generator = torch.Generator().manual_seed(seed * 10**6 + step)
        tokens_BT = repeated_blocks(BATCH, LENGTH, VOCABULARY, PERIODS, generator)
        loss = cross_entropy(model(tokens_BT)[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trial.progress(step / steps, f"{layers} layer{'s' * (layers > 1)}{', copying start' * copying}")
    return course


def watch(course: Course, step: int, test_NT: Tensor) -> None:
    first, second = halves(course.model, test_NT)
    course.steps.append(step)
    course.first.append(first)
    course.second.append(second)
    course.score.append(float(scores(course.model, test_NT)[-1].max()))


@torch.no_grad()
def halves(model: Decoder, test_NT: Tensor) -> tuple[float, float]:
    """Mean loss in nats over the block's first and second reading; the copy rule's loss in the second one is 0."""
    logits_NTV = model(test_NT)[:, :-1]
    nats_NT = -logits_NTV.log_softmax(dim=-1).gather(2, test_NT[:, 1:, None])[..., 0]
    return float(nats_NT[:, : TEST_PERIOD - 1].mean()), float(nats_NT[:, TEST_PERIOD:].mean())


def scores(model: Decoder, test_NT: Tensor) -> Tensor:
    """Prefix-matching score of every head, (L, H)."""
    return prefix_matching(attention_patterns(model, test_NT), TEST_PERIOD).mean(dim=1)


def suddenness(course: Course) -> float:
    """The share of the training in which the second half's loss goes from 90 % of its fall left to 10 %."""
    loss = np.minimum.accumulate(course.second)
    left = (loss - loss[-1]) / (loss[0] - loss[-1])
    return float((np.argmax(left < 0.1) - np.argmax(left < 0.9)) / (len(left) - 1))


def removal(trial: Trial, course: Course, test_NT: Tensor) -> list[float]:
    """The share of the gain that is lost without the best induction head, and without all of them."""
    last_H = scores(course.model, test_NT)[-1]
    order = last_H.argsort(descending=True).tolist()
    gain, lost = course.first[-1] - course.second[-1], []
    for count in (1, max(1, int((last_H > INDUCTION).sum()))):
        heads: list[Head] = [(1, head) for head in order[:count]]
        with silenced(course.model, heads):
            first, second = halves(course.model, test_NT)
        lost.append(1 - (first - second) / gain)
    trial.measure("removed", lost[-1])
    return lost


def show(trial: Trial, courses: dict[str, list[Course]]) -> None:
    for title, y, values in (
        ("Loss on the second reading of a random block", "nats", "second"),
        ("Attention to the token after the last occurrence", "share of the best head in the last layer", "score"),
    ):
        series = []
        for name, runs in courses.items():
            table = np.array([getattr(course, values) for course in runs])
            series.append(Series(name, tuple(runs[0].steps), table.mean(axis=0), table.min(axis=0), table.max(axis=0)))
        trial.plot(title=title, x="steps", y=y, series=series)
    first = courses["two layers"][0].model
    pattern = attention_patterns(first, repeated_blocks(1, 24, VOCABULARY, (12, 12), torch.Generator()))[-1, 0]
    best = int(prefix_matching(pattern, 12).argmax())
    labels, title = tuple(f"{at + 1}" for at in range(24)), "An induction head reads a block of twelve tokens twice"
    note = "Rows attend to columns: the second time, each token looks at the one after its first occurrence."
    values = tuple(map(tuple, pattern[best].tolist()))
    trial.figure(Heat(title=title, values=values, rows=labels, columns=labels, note=note))
