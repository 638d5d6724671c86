"""A model made ready for writing: fused products, and weights of 8 or 4 bits if wanted."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from underhood.core.errors import UserError
from underhood.kernels.cpu_decoder import CpuDecoder, UnsupportedModule
from underhood.kernels.fused_layers import fuse as fuse_layers
from underhood.kernels.jit import HAS_NUMBA
from underhood.kernels.small_batch_linear import use_small_batch_linears
from underhood.kernels.weight_only_linear import Int4Linear, Int8Linear
from underhood.models.decoder import Decoder
from underhood.nn.surgery import find_modules

Quantized = Literal["int8", "int4"]

_PACKED = {"int8": Int8Linear, "int4": Int4Linear}
"""8 bits per weight, and 4.5 as llama.cpp's q4_0 has."""


@torch.no_grad()
def prepare(model: Decoder, quantize: Quantized | None = None, *, fuse: bool = True) -> Decoder:
    """Rebuilds a model in place for inference and returns it: the same function, faster on a CPU.

    Args:
        quantize: None keeps the weights as they are; "int8" and "int4" round those of the blocks and of the
            unembedding, and leave embeddings, norms, routers and a capped unembedding alone.
        fuse: one product where several read the same vector.

    Raises:
        UserError: an unknown kind of quantisation; a quantised model elsewhere than on a CPU.
    """
    if quantize not in (None, "int8", "int4"):
        raise UserError(f"there is no quantisation {quantize!r}", expected="int8 or int4")
    if quantize is not None and model.embed.weight.device.type != "cpu":
        raise UserError(
            f"{quantize} weights work on the CPU only",
            got=f"a model on {model.embed.weight.device}",
            fix="Leave it out",
        )
    model.eval().requires_grad_(False)
    if fuse:
        fuse_layers(model)
    if quantize is None and model.embed.weight.device.type == "cpu":
        use_small_batch_linears(model)
    if quantize is not None:
        for name, layer in list(find_modules(model, ("blocks.*", "unembed"), nn.Linear)):
            if type(layer) is not nn.Linear or name.endswith(".router"):  # a subclass does more than a product
                continue
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _PACKED[quantize](layer))
    return model


def compiled_decoder(model: object) -> CpuDecoder | None:
    """The compiled pass over few tokens for a model, or None where its own forward pass has to do."""
    try:
        return CpuDecoder(model) if HAS_NUMBA and isinstance(model, Decoder) else None
    except UnsupportedModule:
        return None
