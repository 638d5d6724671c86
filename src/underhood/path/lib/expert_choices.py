"""Choices of a mixture's routers on texts of several kinds: which experts, how evenly, how often in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.models.decoder import Decoder
from underhood.nn.moe import MixtureOfExperts
from underhood.path.lib.mixed_text import mixed_text, mixed_windows

WINDOWS = 32


@torch.no_grad()
def choices(model: Decoder, length: int = 64) -> tuple[Int[Tensor, "kinds L N T"], Float[Tensor, "kinds L E"]]:
    """First choice of every held-out token, by kind of text and layer; and the experts' shares of choices."""
    first, loads = [], []
    for kind_N in mixed_text()[1]:
        row_BT = mixed_windows((kind_N,), WINDOWS, length, seed=1)[:, :-1]
        with recorded_choices(model) as chosen:
            model(row_BT)
        first.append(torch.stack([of_layer[:, 0].view_as(row_BT) for of_layer in chosen]))
        counts = [of_layer.flatten().bincount(minlength=experts_of(model)) for of_layer in chosen]
        loads.append(torch.stack(counts).double() / chosen[0].numel())
    return torch.stack(first), torch.stack(loads)


@contextmanager
def recorded_choices(model: Decoder) -> Iterator[list[Int[Tensor, "N A"]]]:
    """Inside, every pass adds each layer's chosen experts to the list."""
    chosen: list[Tensor] = []
    handles = [
        layer.choice.register_forward_hook(lambda _, __, output: chosen.append(output[1])) for layer in mixtures(model)
    ]
    try:
        yield chosen
    finally:
        for handle in handles:
            handle.remove()


def mixtures(model: Decoder) -> list[MixtureOfExperts]:
    return [layer for layer in model.modules() if isinstance(layer, MixtureOfExperts)]


def experts_of(model: Decoder) -> int:
    return mixtures(model)[0].spec.experts


def repetition(first_KLNT: Int[Tensor, "kinds L N T"]) -> float:
    """How often neighbours share their first expert in the last layer, over how often two tokens of a text do."""
    ratios = []
    for first_NT in first_KLNT[:, -1]:
        share_E = first_NT.flatten().bincount().double() / first_NT.numel()
        ratios.append(float((first_NT[:, 1:] == first_NT[:, :-1]).double().mean() / share_E.square().sum()))
    return sum(ratios) / len(ratios)
