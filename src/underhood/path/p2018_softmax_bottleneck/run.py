"""Yang et al. 2018: the rank of what a language model can say is that of its hidden vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.softmax_factors import (
    Weights,
    centred,
    divergence,
    factor_weights,
    fitted,
    mixture_of_softmaxes,
    rank_tail,
    softmax_factors,
    weight_count,
)

CONTEXTS, WORDS, TRUE_RANK = 200, 100, 32
WIDTHS = (2, 4, 8, 16, 24, 32)
STARTS = 4
"""Of the mixture, the best of which counts: one in five ends where both of its softmaxes say the same."""
FOUR = ("king", "queen", "man", "woman")
SAME_SIZE = {"softmax": 16, "mixture of four": 13}
"""Dimensions at which both have as many weights, or the mixture fewer."""


def run(trial: Trial) -> None:
    losses: dict[int, list[float]] = {}
    for seed in trial.each_seed():
        if trial.wants("rank", "enough", "short", "tail"):
            for d, loss in ranks(trial, seed).items():
                losses.setdefault(d, []).append(loss)
        if trial.wants("analogy", "mixture"):
            parallelogram(trial, seed)
        if trial.wants("equal_size"):
            same_size(trial, seed)
    if losses and not trial.is_ablation:
        middle, low, high = (tuple(float(end(values)) for values in losses.values()) for end in (np.mean, min, max))
        trial.plot(
            title="A floor that training cannot pass, until the dimensions are as many as the target's",
            x="dimensions of the hidden vector",
            y="nats lost per context",
            log_y=True,
            series=(Series("softmax", tuple(losses), middle, low, high),),
            note=f"The target's logits have rank {TRUE_RANK}: {CONTEXTS} contexts, {WORDS} words.",
        )


def ranks(trial: Trial, seed: int) -> dict[int, float]:
    """Trains output layers of several widths on one target; the nats that each loses."""
    target = distributions(seed, TRUE_RANK)
    losses = {}
    needed = (TRUE_RANK // 2, TRUE_RANK)
    for d in trial.each(needed if trial.is_ablation or trial.scale == "smoke" else WIDTHS, "width"):
        wide = WORDS if trial.ablated("bottleneck") else d
        steps = trial.by_scale(smoke=300, report=400)
        start = factor_weights(CONTEXTS, WORDS, wide, seed=seed)
        weights = fitted(softmax_factors, start, target, steps=steps, tell=trial.progress)
        log_probs = softmax_factors(weights)
        losses[d] = float(divergence(target, log_probs))
        trial.measure("rank", int(np.linalg.matrix_rank(log_probs.numpy())) - (d + 1))
        if wide < TRUE_RANK:
            error = float((centred(log_probs) - centred(target.log())).norm())
            trial.measure("tail", error / rank_tail(target.log(), wide))
    trial.measure("short", losses[TRUE_RANK // 2])
    trial.measure("enough", losses[TRUE_RANK])
    return losses


def distributions(seed: int, rank: int) -> Tensor:
    """Probabilities (contexts, words) whose logits have that rank and variance 4."""
    generator = torch.Generator().manual_seed(1000 + seed)
    left, right = (torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (CONTEXTS, WORDS))
    return (2 * left @ right.T / rank**0.5).softmax(dim=-1)


def parallelogram(trial: Trial, seed: int) -> None:
    """Four words whose embeddings have king − queen = man − woman; one context wants king or woman, half each."""
    generator = torch.Generator().manual_seed(seed)
    royal, male, base = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    words = torch.stack([base + royal + male, base + royal, base + male, base])
    target = torch.tensor([[0.5, 0.0, 0.0, 0.5]], dtype=torch.float64)
    free = trial.ablated("bottleneck")
    start = factor_weights(1, len(FOUR), 8, seed=seed) | {"W": torch.eye(4, 8, dtype=torch.float64) if free else words}
    weights = fitted(softmax_factors, start, target, steps=200, trained=("H",))
    trial.measure("analogy", wrong_share(softmax_factors(weights)))
    if trial.wants("mixture"):
        shares = []
        for start in range(STARTS):
            parts = factor_weights(1, len(FOUR), 8, seed=STARTS * seed + start, parts=2) | {"W": 4 * words}
            weights = fitted(mixture_of_softmaxes, parts, target, steps=200, trained=("H", "P", "S"))
            shares.append(wrong_share(mixture_of_softmaxes(weights)))
        trial.measure("mixture", min(shares))


def wrong_share(log_probs: Tensor) -> float:
    """The probability of queen and man."""
    return float(log_probs.exp()[0, 1:3].sum())


def same_size(trial: Trial, seed: int) -> None:
    """A softmax and a mixture with as many weights, on targets of full rank."""
    target = distributions(seed, WORDS)
    steps = trial.by_scale(smoke=200, report=400)
    starts: dict[str, Weights] = {
        name: factor_weights(CONTEXTS, WORDS, d, seed=seed, parts=4 if name != "softmax" else 0)
        for name, d in SAME_SIZE.items()
    }
    single, mixed = starts.values()
    assert weight_count(mixed) <= weight_count(single)
    losses = [
        float(divergence(target, model(fitted(model, start, target, steps=steps, tell=trial.progress))))
        for model, start in ((softmax_factors, single), (mixture_of_softmaxes, mixed))
    ]
    trial.measure("equal_size", losses[1] / losses[0])
