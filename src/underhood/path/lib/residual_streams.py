"""Residual streams of many sequences at once, where `inspect.trace` records one prompt of a loaded model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.models.decoder import Decoder

SEQUENCES = 256
"""Of one forward pass."""


@torch.no_grad()
def residual_streams(model: Decoder, tokens_NT: Int[Tensor, "N T"]) -> Float[Tensor, "L1 N T D"]:
    """The residual stream before each of the L layers, and after the last one (before the final norm)."""
    layers = len(model.blocks)
    streams: list[list[Tensor]] = [[] for _ in range(layers + 1)]
    hooked = [*model.blocks, model.norm]
    handles = [
        module.register_forward_pre_hook(lambda _module, inputs, layer=layer: streams[layer].append(inputs[0]))
        for layer, module in enumerate(hooked)
    ]
    try:
        for chunk in tokens_NT.split(SEQUENCES):
            model(chunk)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([torch.cat(chunks) for chunks in streams])
