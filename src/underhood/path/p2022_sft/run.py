"""Ouyang et al. 2022, step 1: what a base model learns from 500 instructions with answers, and for how long."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.align.sft import SFTLoss
from underhood.core.figures import Series
from underhood.core.runlog import RunLog
from underhood.core.trial import Trial
from underhood.data.batch import IGNORE, Batch
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.answer_rows import answer_rows
from underhood.path.lib.skill_rows import TOKENIZER, Instruction, dealt_out, instructions, web_of_lists
from underhood.path.lib.win_rates import bootstrap
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec, MuonAdamWSpec
from underhood.train.small_lm import train_small

PAIRS, BATCH, ANSWER_MAX, CONTEXT = 500, 16, 14, 48
STEPS_PER_EPOCH = -(-PAIRS // BATCH)
SPEC = qwen3_shaped(vocab_size=TOKENIZER.vocab_size, context_length=CONTEXT, d_model=64, layers=2, heads=4)


@dataclass
class TuningCourse:
    """Held-out loss (nats per token of answers) and right answers, by epochs trained.

    Attributes:
        right_N: 1 for each held-out instruction that was answered exactly right at the end.
    """

    epochs: list[int]
    losses: list[float]
    shares: list[float]
    right_N: Tensor


def run(trial: Trial) -> None:
    epochs = trial.by_scale(smoke=(0, 5), report=(0, 1, 2, 4, 6, 8, 12, 16, 24))
    courses: list[TuningCourse] = []
    for seed in trial.each_seed():
        test = instructions(400, seed + 1000)
        train = instructions(PAIRS, seed, without=test)
        if trial.ablated("pairs"):
            train = dealt_out(train, seed)
        masked = not trial.ablated("mask")
        trial.measure("no_gradient", prompt_gradient(SPEC.initialize(seed=seed), train[:BATCH], masked=masked))
        if not trial.wants("combos"):
            continue
        base = pretrained(trial, seed)
        course = tuned(trial, base, train, test, epochs, masked=True, seed=seed)
        interval = bootstrap([course.right_N]) if len(trial.seeds) == 1 else None
        trial.measure("combos", course.shares[-1], interval=interval)
        trial.measure("base", course.shares[0])
        if trial.scale == "report":
            other = tuned(trial, base, train, test, (epochs[-1],), masked=False, seed=seed)
            best = int(np.argmin(course.losses))
            trial.measure("overfits", course.losses[-1] - course.losses[best])
            trial.measure("goes_on", course.shares[-1] - course.shares[best])
            trial.measure("masking", course.shares[-1] - other.shares[-1])
            courses.append(course)
    if courses:
        show(trial, courses)


def pretrained(trial: Trial, seed: int) -> Decoder:
    """A base model of the web of lists."""
    steps, rates = trial.by_scale(smoke=120, report=300), MuonAdamWSpec(matrix_lr=0.02, lr=0.01)
    texts = web_of_lists(4000, seed)
    return train_small(texts, TOKENIZER, SPEC, steps=steps, batch_size=16, seed=seed, optimizer=rates, copying=True)


def rows_of(examples: Sequence[Instruction], *, masked: bool = True) -> Batch:
    """A batch whose targets are the answers, or everything."""
    return answer_rows([(ids, opening if masked else 1) for ids, opening in (each.row for each in examples)])


def tuned(
    trial: Trial,
    base: Decoder,
    train: Sequence[Instruction],
    test: Sequence[Instruction],
    epochs: Sequence[int],
    *,
    masked: bool,
    seed: int,
) -> TuningCourse:
    """Fine-tunes for the last of the epochs and measures after each of them."""
    model, course = copy.deepcopy(base).train(), TuningCourse([], [], [], torch.zeros(0))

    def batch(step: int) -> Batch:
        epoch, number = divmod(step, STEPS_PER_EPOCH)
        order = np.random.default_rng([seed, epoch]).permutation(PAIRS)[number * BATCH : (number + 1) * BATCH]
        return rows_of([train[n] for n in order], masked=masked)

    def watch(step: int, share: float) -> None:
        trial.progress(share, "tuning")
        epoch, inside = divmod(step, STEPS_PER_EPOCH)
        if not inside and epoch in epochs:
            course.right_N = right(model, test)
            course.epochs.append(epoch)
            course.losses.append(held_out_loss(model, test))
            course.shares.append(float(course.right_N.mean()))
            model.train()

    steps, optimizer = epochs[-1] * STEPS_PER_EPOCH, AdamWSpec(lr=1e-3, weight_decay=0.0).build(model)
    fit(model, batch, SFTLoss(), optimizer, FitSpec(steps=steps), stage="sft", log=RunLog(None), watch=watch)
    return course


def right(model: Decoder, examples: Sequence[Instruction]) -> Tensor:
    """1 where the likeliest answer is exactly right."""
    prompts = [each.prompt_ids for each in examples]
    written = generate(model.eval(), prompts, max_new_tokens=ANSWER_MAX, stop_ids=(TOKENIZER.end,), batch_size=256)
    hits = [each.is_right(TOKENIZER.decode(answer.ids)) for each, answer in zip(examples, written, strict=True)]
    return torch.tensor(hits, dtype=torch.float32)


@torch.no_grad()
def held_out_loss(model: Decoder, examples: Sequence[Instruction]) -> float:
    rows = rows_of(examples)
    return float(SFTLoss()(model.eval(), rows)[0]) / rows.target_count


def prompt_gradient(model: Decoder, examples: Sequence[Instruction], *, masked: bool) -> float:
    """The largest gradient of the loss with respect to a score that foretells a token of a prompt."""
    rows = rows_of(examples, masked=masked)
    scores_BTV = model(rows.tokens).detach().requires_grad_()
    F.cross_entropy(scores_BTV.flatten(0, 1), rows.targets.flatten(), ignore_index=IGNORE, reduction="sum").backward()
    assert scores_BTV.grad is not None
    return float(scores_BTV.grad[rows_of(examples).targets == IGNORE].abs().max())


def show(trial: Trial, courses: Sequence[TuningCourse]) -> None:
    for title, y, values in (
        ("The held-out loss falls, and rises again", "nats per token", [c.losses for c in courses]),
        ("Right answers go on increasing all the same", "share exactly right", [c.shares for c in courses]),
    ):
        table = np.array(values)[:, 1:]
        mean, low, high = (tuple(f(table, axis=0)) for f in (np.mean, np.min, np.max))
        epochs = tuple(map(float, courses[0].epochs[1:]))
        trial.plot(title=title, x="epochs", y=y, series=[Series("mean and range over seeds", epochs, mean, low, high)])
