"""More features than dimensions: the toy model of superposition (Elhage et al. 2022).

n features go through m < n dimensions and back with the same weights, ``x' = ReLU(Wᵀ W x + b)``. A feature is rarely
on; when it is, it has a value from 0 to 1. Column i of W is the direction that feature i is given.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squeeze(
    features: int,
    dimensions: int,
    on: float,
    *,
    seed: int = 0,
    relu: bool = True,
    steps: int = 1000,
    batch: int = 256,
    rate: float = 1e-2,
) -> tuple[Tensor, Tensor]:
    """Trains the model to give back features that are each on with probability `on`.

    Returns:
        W (dimensions, features) and b (features).
    """
    generator = torch.Generator().manual_seed(seed)
    W = (torch.randn(dimensions, features, generator=generator) * 0.5 / dimensions**0.5).requires_grad_()
    b = torch.zeros(features, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=steps)
    for _ in range(steps):
        value, chance = torch.rand(2, batch, features, generator=generator)
        x = value * (chance < on)
        loss = (restored(x, W, b, relu) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return W.detach(), b.detach()


def restored(x: Tensor, W: Tensor, b: Tensor, relu: bool = True) -> Tensor:
    """What comes back of features (…, n) after the way through the narrow space."""
    y = x @ W.T @ W + b
    return y.relu() if relu else y


def kept(W: Tensor, b: Tensor, relu: bool = True) -> int:
    """How many features come back with half of their value or more when they are on alone."""
    return int((restored(torch.eye(len(b)), W, b, relu).diagonal() >= 0.5).sum())
