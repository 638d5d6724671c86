"""Vaswani et al. 2017, section 3.2.1: attention is a soft look-up, and its scores must not grow with the width."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.nn.attention import attend
from underhood.path.lib.many_seeds import train_many

SYMBOLS, PAIRS, D_MODEL, BATCH = 16, 8, 32, 64
RATES = (0.003, 0.01)
LEARNT, SMOOTHED = 0.1, 10  # nats per answer (of log 16 = 2.77), on average over so many steps


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None = None) -> Tensor:
    """Values mixed by how well their keys match each query: q (…, T, d), k (…, S, d), v (…, S, e) to (…, T, e)."""
    scores = q @ k.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ v


class LookUp(nn.Module):
    """One head that reads pairs of key and value, then a key, and answers with its value."""

    def __init__(self, d: int, *, scale: float | None, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def matrix(rows: int, columns: int, size: float = D_MODEL**-0.5) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * size)

        self.keys, self.values = matrix(SYMBOLS, D_MODEL, 1.0), matrix(SYMBOLS, D_MODEL, 1.0)
        self.query, self.key, self.output = matrix(D_MODEL, d), matrix(D_MODEL, d), matrix(D_MODEL, SYMBOLS)
        self.direction = None if scale is not None else matrix(d, 1, d**-0.5)  # of additive attention
        self.scale = scale

    def forward(self, tokens_BT: Tensor) -> Tensor:
        q = self.keys[tokens_BT[:, -1:]] @ self.query
        k, v = self.keys[tokens_BT[:, :PAIRS]] @ self.key, self.values[tokens_BT[:, PAIRS : 2 * PAIRS]]
        if self.direction is None:
            assert self.scale is not None
            read = attention(q, k, v, scale=self.scale)
        else:  # Bahdanau et al. 2015
            scores = (torch.tanh(q[:, :, None] + k[:, None]) @ self.direction)[..., 0]
            read = scores.softmax(dim=-1) @ v
        return (read @ self.output)[:, 0]


def run(trial: Trial) -> None:
    oracles(trial)
    seeds = list(trial.each_seed())
    for seed in seeds:
        entropy_gap(trial, seed)
    if not trial.wants("narrow", "unscaled", "additive"):
        return
    widths, steps = (8, 32, 128), 250
    needed: dict[str, list[np.ndarray]] = {"divided by √d": [], "not divided": [], "additive": []}
    for width in trial.each(widths, "width"):
        for by_width, scale in zip(needed.values(), (width**-0.5, 1.0, None), strict=True):
            by_width.append(steps_needed(width, scale, seeds, steps))
    scaled, unscaled, additive = needed.values()
    for number in range(len(seeds)):
        trial.measure("narrow", unscaled[0][number] / scaled[0][number])
        trial.measure("unscaled", unscaled[-1][number] / scaled[-1][number])
        trial.measure("additive", additive[-1][number] / scaled[-1][number])
    trial.plot(
        title="Steps until a look-up is learnt",
        x="dimensions of a head",
        y=f"steps (at most {steps})",
        log_x=True,
        log_y=True,
        series=[Series(name, widths, *lines(by_width)) for name, by_width in needed.items()],
    )


def lines(by_width: list[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    mean, low, high = (tuple(float(f(by_seed)) for by_seed in by_width) for f in (np.mean, np.min, np.max))
    return mean, low, high


def divisor(trial: Trial, width: int) -> float:
    return 1.0 if trial.ablated("divisor") else width**-0.5


def entropy_gap(trial: Trial, seed: int) -> None:
    """Bits of the weights' entropy with and without the divisor, before any training."""
    generator = torch.Generator().manual_seed(seed)
    widths = (2, 8, 32, 128, 512)
    bits: dict[bool, list[float]] = {True: [], False: []}
    variances = []
    for width in widths:
        q, k = (torch.randn(1000, count, width, generator=generator) for count in (1, SYMBOLS))
        scores = (q @ k.mT)[:, 0]
        variances.append(float(scores.var()) / width)
        for divided in bits:
            weights = (scores * (divisor(trial, width) if divided else 1.0)).softmax(dim=-1)
            bits[divided].append(float(torch.special.entr(weights).sum(-1).mean()) / math.log(2))
    trial.measure("variance", variances[-1])
    trial.measure("choice", bits[True][-1] - bits[False][-1])
    if seed == 0:
        trial.plot(
            title="How many keys the softmax still chooses from, before training",
            x="dimensions of a head",
            y="entropy of 16 weights, bits",
            log_x=True,
            series=[Series(f"{'' if key else 'not '}divided by √d", widths, tuple(bits[key])) for key in bits],
        )


def steps_needed(width: int, scale: float | None, seeds: list[int], steps: int) -> np.ndarray:
    """Steps until the loss is below `LEARNT`, by seed, at the rate that is best on average; `steps` if never."""
    rates = [rate for rate in RATES for _ in seeds]
    models = [LookUp(width, scale=scale, seed=seed) for _ in RATES for seed in seeds]
    course: list[Tensor] = []
    train_many(
        models,
        lambda step: questions(step, len(models)),
        F.cross_entropy,
        steps=steps,
        lr=torch.tensor(rates),
        watch=lambda _, losses: course.append(losses),
    )
    smooth_TN = torch.stack(course).unfold(0, SMOOTHED, 1).mean(dim=-1)
    below_TN = (smooth_TN < LEARNT).float()
    first_N = torch.where(below_TN.amax(0) > 0, below_TN.argmax(0) + SMOOTHED, steps)
    by_rate = first_N.view(len(RATES), len(seeds)).double().numpy()
    return by_rate[by_rate.mean(axis=1).argmin()]


def questions(step: int, models: int) -> tuple[Tensor, Tensor]:
    """Eight pairs of different keys and any values, one of the keys again, and the value that belongs to it."""
    generator = torch.Generator().manual_seed(step)
    keys = torch.rand(models, BATCH, SYMBOLS, generator=generator).argsort(-1)[..., :PAIRS]
    values = torch.randint(SYMBOLS, (models, BATCH, PAIRS), generator=generator)
    at = torch.randint(PAIRS, (models, BATCH, 1), generator=generator)
    return torch.cat((keys, values, keys.gather(-1, at)), dim=-1), values.gather(-1, at)[..., 0]


def oracles(trial: Trial) -> None:
    q, k, v = (torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    worst = max(
        float((attention(q, k, v, scale=8**-0.5, mask=mask) - theirs).abs().max())
        for mask in (None, causal)
        for theirs in (F.scaled_dot_product_attention(q, k, v, attn_mask=mask), attend(q, k, v, mask))
    )
    trial.oracle("torch's fused attention and the library's give the same", worst < 1e-12, f"difference {worst:.0e}")
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = attention(*(x[..., order, :] for x in (q, k, v)), scale=8**-0.5)
    gap = float((shuffled - attention(q, k, v, scale=8**-0.5)[..., order, :]).abs().max())
    trial.oracle("tokens in another order give the same outputs in that order", gap < 1e-12, f"difference {gap:.0e}")
