"""Gudibande et al. 2023: a student of a teacher's answers copies their form at once, and facts one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, qwen3_shaped

SUBJECTS, VALUES = 300, 20
KNOWN, IMITATED = 60, 100
ASK, TELL, PLAIN_END, OPENING, CLOSING = range(SUBJECTS + VALUES, SUBJECTS + VALUES + 5)
VOCABULARY, ANSWER = SUBJECTS + VALUES + 5, 3
BATCH, EVERY = 64, 10


@dataclass(frozen=True)
class World:
    """Subjects with a value each, and who has heard of which.

    Attributes:
        value_S: the token of each subject's value, which is asked for.
        aside_S: that of another fact about each, which the student's pre-training has of all.
        known, imitated, others: subjects of the student's pre-training, further ones of the imitation data, the rest.
    """

    value_S: Int[Tensor, "S"]
    aside_S: Int[Tensor, "S"]
    known: Int[Tensor, "N"]
    imitated: Int[Tensor, "M"]
    others: Int[Tensor, "K"]

    def plain(self, subjects_N: Tensor, ask: int = ASK) -> Tensor:
        """``? subject value .``, padded by the end; with `TELL` in place of `ASK`, the other fact."""
        ask_N, end_N = (torch.full_like(subjects_N, token) for token in (ask, PLAIN_END))
        values_N = (self.value_S if ask == ASK else self.aside_S)[subjects_N]
        return torch.stack([ask_N, subjects_N, values_N, end_N, end_N], dim=1)

    def styled(self, subjects_N: Tensor) -> Tensor:
        """The teacher's form of an answer: ``? subject Certainly: value !``"""
        ask, opening, closing = (torch.full_like(subjects_N, token) for token in (ASK, OPENING, CLOSING))
        return torch.stack([ask, subjects_N, opening, self.value_S[subjects_N], closing], dim=1)


def made_world(seed: int) -> World:
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(SUBJECTS, generator=draw)
    values_2S = SUBJECTS + torch.randint(VALUES, (2, SUBJECTS), generator=draw)
    return World(values_2S[0], values_2S[1], order[:KNOWN], order[KNOWN : KNOWN + IMITATED], order[KNOWN + IMITATED :])


def run(trial: Trial) -> None:
    curves: list[list[tuple[float, float, float]]] = []
    for seed in trial.each_seed():
        world, everyone = made_world(seed), torch.arange(SUBJECTS)
        teacher = fresh(64, 1, seed)
        texts = world.plain(everyone) if trial.ablated("form") else world.styled(everyone)
        train(teacher, texts, trial.by_scale(smoke=400, report=600), seed)
        base_texts = torch.cat([world.plain(world.known), world.plain(everyone, TELL)])
        base = train(fresh(32, 1, seed + 1), base_texts, trial.by_scale(smoke=300, report=600), seed)
        taught_about = everyone if trial.ablated("narrow") else torch.cat([world.known, world.imitated])
        data = torch.cat([world.plain(taught_about)[:, :2], answers(teacher, taught_about)], dim=1)
        points: list[tuple[float, float, float]] = []

        def watch(model: Decoder, world: World = world, points: list = points) -> None:
            own, other = answers(model, world.imitated), answers(model, world.others)
            points.append((form(other), accuracy(own, world, world.imitated), accuracy(other, world, world.others)))

        steps = trial.by_scale(smoke=120, report=300)
        student = train(copy.deepcopy(base), data, steps, seed, watch)
        style = points[-1][0]
        for key in ("style", "mostly"):
            trial.measure(key, style)
        trial.measure("supported", gap_closed((base, student, teacher), world, world.imitated))
        trial.measure("unsupported", gap_closed((base, student, teacher), world, world.others))
        if trial.is_ablation:
            continue
        trial.measure("faster", first_above([point[0] for point in points]) / first_above([p[1] for p in points]))
        swapped = torch.cat([data[:, :2], data.roll(1, 0)[:, 2:]], dim=1)
        trial.measure("wrong_teacher", form(answers(train(copy.deepcopy(base), swapped, steps, seed), world.others)))
        better = train(copy.deepcopy(base), world.plain(world.others), steps, seed)
        trial.measure("better_base", gap_closed((base, better, teacher), world, world.others))
        curves.append(points)
    if curves:
        show(trial, torch.tensor(curves))


def fresh(width: int, layers: int, seed: int) -> Decoder:
    spec = qwen3_shaped(vocab_size=VOCABULARY, context_length=8, d_model=width, layers=layers, heads=2)
    return spec.initialize(seed=seed)


def train(
    model: Decoder, texts_NT: Tensor, steps: int, seed: int, watch: Callable[[Decoder], None] | None = None
) -> Decoder:
    """AdamW on what follows the question; `watch` sees the model every `EVERY` steps."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        if watch is not None and step % EVERY == 0:
            watch(model)
        ids_BT = texts_NT[torch.randint(len(texts_NT), (BATCH,), generator=draw)]
        logits_BTV = model(ids_BT[:, :-1])[:, 1:]
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if watch is not None:
        watch(model)
    return model


@torch.no_grad()
def answers(model: Decoder, subjects_N: Tensor) -> Int[Tensor, "N 3"]:
    """What the model says about each subject, greedily."""
    ids_NT = torch.stack([torch.full_like(subjects_N, ASK), subjects_N], dim=1)
    for _ in range(ANSWER):
        ids_NT = torch.cat([ids_NT, model(ids_NT)[:, -1:].argmax(-1)], dim=1)
    return ids_NT[:, 2:]


def form(answers_N3: Tensor) -> float:
    """Share of answers in the teacher's form, whatever value they name."""
    value_N = (answers_N3[:, 1] >= SUBJECTS) & (answers_N3[:, 1] < SUBJECTS + VALUES)
    return float(((answers_N3[:, 0] == OPENING) & value_N & (answers_N3[:, 2] == CLOSING)).float().mean())


def accuracy(answers_N3: Tensor, world: World, subjects_N: Tensor) -> float:
    """Share of answers that hold the right value, in either form."""
    return float((answers_N3[:, :2] == world.value_S[subjects_N][:, None]).any(dim=1).float().mean())


def gap_closed(models: tuple[Decoder, Decoder, Decoder], world: World, subjects_N: Tensor) -> float:
    """The share of the way in accuracy from the first model to the third that the second has made."""
    before, after, teacher = (accuracy(answers(model, subjects_N), world, subjects_N) for model in models)
    return (after - before) / (teacher - before)


def first_above(shares: list[float]) -> float:
    """Steps until nine in ten; one measurement more than there are if never."""
    return EVERY * next((number for number, share in enumerate(shares) if share >= 0.9), len(shares)) or EVERY


def show(trial: Trial, curve_SPK: Tensor) -> None:
    steps = tuple(float(EVERY * number) for number in range(curve_SPK.shape[1]))
    names = ("form, subjects not in the data", "right, subjects in the data", "right, subjects not in the data")
    trial.plot(
        title="Form reaches every answer, facts only those that the data hold",
        x="steps of imitation",
        y="share of answers",
        series=[Series(name, steps, tuple(curve_SPK.mean(0)[:, k].tolist())) for k, name in enumerate(names)],
    )
