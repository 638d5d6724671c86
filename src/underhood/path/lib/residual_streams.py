"""Residual streams of many sequences at once, where `inspect.trace` records one prompt of a loaded model."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.models.decoder import Decoder

SEQUENCES = 256
"""Of one forward pass."""


@torch.no_grad()
def residual_streams(model: Decoder, tokens_NT: Int[Tensor, "N T"]) -> Float[Tensor, "L1 N T D"]:
    """The residual stream before each of the L layers, and after the last one (before the final norm)."""
    streams: list[list[Tensor]] = [[] for _ in range(len(model.blocks) + 1)]
    handles = []
    for module, kept in zip([*model.blocks, model.norm], streams, strict=True):

        def keep(_module: Any, inputs: Any, kept: list[Tensor] = kept) -> None:
            kept.append(inputs[0])

        handles.append(module.register_forward_pre_hook(keep))
    try:
        for chunk in tokens_NT.split(SEQUENCES):
            model(chunk)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([torch.cat(chunks) for chunks in streams])
