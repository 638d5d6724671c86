"""Linear probes of a board in a model's residual stream, and boards changed along them (Li et al. 2023; Nanda
et al. 2023).

A probe is one linear map per layer from the residual stream to every cell's state: empty, own, the other's. *Own* is
the side that moves next; in black and white instead, the same stream needs a probe that is not linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.models.decoder import Decoder

EMPTY, OWN, OTHER = 0, 1, 2


def fit_probe(
    x_MD: Float[Tensor, "M D"], states_MC: Int[Tensor, "M C"], *, epochs: int, seed: int, batch: int = 1024
) -> Float[Tensor, "C 3 D+1"]:
    """The weights of a linear classifier for each of C cells, biases last (Adam, cross-entropy)."""
    generator = torch.Generator().manual_seed(seed)
    x_MD = with_ones(x_MD)
    cells, width = states_MC.shape[1], x_MD.shape[1]
    probe = torch.zeros(cells * 3, width, requires_grad=True)
    optimizer = torch.optim.Adam([probe], lr=3e-3)
    steps = epochs * -(-len(x_MD) // batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    for _ in range(epochs):
        for at in torch.randperm(len(x_MD), generator=generator).split(batch):
            logits = (x_MD[at] @ probe.T).unflatten(1, (cells, 3))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), states_MC[at].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe.detach().unflatten(0, (cells, 3))


def read_board(probe_C3E: Tensor, x_MD: Float[Tensor, "M D"]) -> Int[Tensor, "M C"]:
    """The likeliest state of every cell."""
    return torch.einsum("me,cse->mcs", with_ones(x_MD), probe_C3E).argmax(dim=-1)


def disc_error(read_MC: Int[Tensor, "M C"], states_MC: Int[Tensor, "M C"]) -> float:
    """The share of discs whose side is read wrongly; empty cells are easy and not counted."""
    discs = states_MC != EMPTY
    return float((read_MC != states_MC)[discs].float().mean())


def with_ones(x_MD: Tensor) -> Tensor:
    return torch.cat([x_MD, torch.ones(len(x_MD), 1)], dim=1)


def flip_push(
    probe_C3E: Tensor, x_BD: Float[Tensor, "B D"], cell_B: Int[Tensor, "B"], from_B: Int[Tensor, "B"]
) -> Float[Tensor, "B D"]:
    """The shortest push of each residual stream that brings a cell's disc to the border between both sides.

    Args:
        from_B: the side that each disc has now, `OWN` or `OTHER`. Twice the push reflects it to the other side.
    """
    difference_BE = probe_C3E[cell_B, OWN + OTHER - from_B] - probe_C3E[cell_B, from_B]
    direction_BD = difference_BE[:, :-1]
    missing_B1 = (with_ones(x_BD) * difference_BE).sum(dim=1, keepdim=True).abs()
    return direction_BD * missing_B1 / direction_BD.square().sum(dim=1, keepdim=True)


@contextmanager
def pushed(
    model: Decoder, layers: Sequence[int], position_B: Int[Tensor, "B"], push: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Inside, ``push(layer, x_BD)`` is added to the residual stream of one token per row after each of these layers."""
    handles = []
    rows = torch.arange(len(position_B))
    for layer in layers:

        def change(_module: Any, _inputs: Any, output: Tensor, layer: int = layer) -> Tensor:
            changed = output.clone()
            changed[rows, position_B] += push(layer, output[rows, position_B])
            return changed

        handles.append(model.blocks[layer].register_forward_hook(change))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
