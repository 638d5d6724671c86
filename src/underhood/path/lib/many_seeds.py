"""Training of many small models of one shape side by side: their weights are stacked, one pass serves all of them.

A tiny model's step costs mostly the calls of operations, not arithmetic, so ten seeds take little longer than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

Model = TypeVar("Model", bound=nn.Module)
Batches = Callable[[int], tuple[Tensor, Tensor]]
"""Inputs and targets of a step for all models, each (N, B, …)."""


def train_many(
    models: Sequence[Model],
    batches: Batches,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    lr: float | Tensor,
    watch: Callable[[int, Tensor], object] | None = None,
) -> list[Model]:
    """Adam on every model by itself, all at once; the models, trained.

    Args:
        loss: of a model's outputs and its targets, a number.
        lr: constant learning rate, or one for each model (N).
        watch: hears after each step the losses (N) that it began with.
    """
    weights, buffers = stack_module_state([*models])
    first = models[0]

    def single(weights_of_one: dict, buffers_of_one: dict, inputs: Tensor, targets: Tensor) -> Tensor:
        return loss(functional_call(first, (weights_of_one, buffers_of_one), (inputs,)), targets)

    optimizer = torch.optim.Adam(weights.values(), lr=1.0)
    together = vmap(single, randomness="different")
    for step in range(steps):
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels know nothing of stacked models
            losses_N = together(weights, buffers, *batches(step))
        optimizer.zero_grad()
        losses_N.sum().backward()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimizer.step()
        with torch.no_grad():  # Adam's step is proportional to the rate, so each model's can be scaled afterwards
            for name, weight in weights.items():
                rate = lr.view(-1, *[1] * (weight.ndim - 1)) if isinstance(lr, Tensor) else lr
                weight.copy_(before[name] + rate * (weight - before[name]))
        if watch is not None:
            watch(step, losses_N.detach())
    with torch.no_grad():
        for number, model in enumerate(models):
            for name, weight in model.named_parameters():
                weight.copy_(weights[name][number])
    return [*models]
