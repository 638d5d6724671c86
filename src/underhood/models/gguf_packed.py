"""Decoders from GGUF files for inference on a CPU, with quantised matrices kept in few bits.

Q4_0, Q4_1 and Q8_0 keep their bits; what else is quantised (Q4_K, Q6_K, …) is rounded again to blocks that have
kernels. No matrix is ever wholly in float32.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from torch import nn

from underhood.kernels.block_linear import BLOCK_BYTES, BlockKind
from underhood.kernels.block_rounding import to_blocks
from underhood.kernels.block_simd import BLOCK
from underhood.kernels.block_surgery import BlockRows, takes_blocks, use_blocks
from underhood.models.decoder import Decoder
from underhood.models.gguf_reader import GGUFFile
from underhood.models.gguf_tensor import CHUNK_VALUES, FLOAT_TYPES, GGUFTensor
from underhood.models.gguf_weights import RELEASE_BYTES, gguf_parameters, gguf_spec
from underhood.models.hub_weights import Progress
from underhood.models.restore import skeleton

KEPT: dict[GGMLQuantizationType, BlockKind] = {
    GGMLQuantizationType.Q4_0: "q4_0",
    GGMLQuantizationType.Q4_1: "q4_1",
    GGMLQuantizationType.Q8_0: "q8_0",
}
"""Types whose blocks are multiplied as they are."""

_BITS = {"q8_0": "8 bits", "q4_1": "4 bits"}


@dataclass(frozen=True)
class Packing:
    """What became of a file's matrices.

    Attributes:
        kept, rounded: how many matrices of each type keep their bits, and are rounded again.
        kind: what those are rounded to.
        floats: how many are held in float32.
    """

    kept: Counter[str]
    rounded: Counter[str]
    kind: BlockKind
    floats: int

    def __str__(self) -> str:
        clauses = []
        if self.kept:
            clauses.append(f"{_counts(self.kept)} kept bit for bit")
        if self.rounded:
            clauses.append(f"{_counts(self.rounded)} rounded to {_BITS[self.kind]}")
        if self.floats:
            clauses.append(f"{self.floats} in float32")
        return "Matrices: " + ", ".join(clauses)


def _counts(types: Counter[str]) -> str:
    return " and ".join(f"{count} {name}" for name, count in types.most_common())


def has_blocks(file: GGUFFile) -> bool:
    """Whether any of a file's matrices is quantised."""
    return any(tensor.type not in FLOAT_TYPES and len(tensor.shape) > 1 for tensor in file.tensors.values())


@torch.no_grad()
def load_packed_gguf(
    file: GGUFFile,
    *,
    kind: BlockKind = "q8_0",
    context_length: int | None = None,
    progress: Progress | None = None,
) -> tuple[Decoder, Packing]:
    """The model in a GGUF file, for inference on a CPU.

    Args:
        kind: what quantised matrices without kernels are rounded to: "q8_0" or "q4_1".
        context_length: see `spec_from_config`.
        progress: told after each parameter.

    Raises:
        UserError: as `load_gguf`.
    """
    spec = gguf_spec(file, context_length=context_length)
    model = cast(Decoder, skeleton(spec))
    tensors = gguf_parameters(file, model)
    packing = Packing(Counter(), Counter(), kind, 0)
    total, done, read = sum(tensor.blocks.nbytes for tensor in tensors.values()), 0, 0
    floats = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: len(item[1].shape)):  # biases before their matrices
        matrix = takes_blocks(model, name) and tensor.type not in FLOAT_TYPES
        if matrix and tensor.type in KEPT:
            packing.kept[tensor.type.name] += 1
            use_blocks(model, {name: BlockRows(tensor.blocks, KEPT[tensor.type])}, tied=spec.tied)
        elif matrix and tensor.shape[-1] % BLOCK == 0:
            packing.rounded[tensor.type.name] += 1
            use_blocks(model, {name: BlockRows(rounded_rows(tensor, kind), kind)}, tied=spec.tied)
        else:
            floats += matrix or len(tensor.shape) > 1
            _fill(model, name, tensor)
        done, read = done + tensor.blocks.nbytes, read + tensor.blocks.nbytes
        if read >= RELEASE_BYTES:
            file.release_pages()
            read = 0
        if progress is not None:
            progress(done, total)
    file.release_pages()
    if spec.tied and not hasattr(model.embed, "table"):
        model.unembed.weight = model.embed.weight
    return model.eval().requires_grad_(False), Packing(packing.kept, packing.rounded, kind, floats)


def rounded_rows(tensor: GGUFTensor, kind: BlockKind) -> NDArray[np.uint8]:
    """A tensor rounded to blocks, some rows at a time."""
    outputs, inputs = len(tensor.blocks), tensor.shape[-1]
    rows_OX = np.empty((outputs, inputs // BLOCK * BLOCK_BYTES[kind]), dtype=np.uint8)
    each = max(1, CHUNK_VALUES // inputs)
    for first in range(0, outputs, each):
        piece = tensor.rows(slice(first, first + each)).dequantize()
        rows_OX[first : first + each] = to_blocks(piece, kind)
    return rows_OX


def _fill(model: Decoder, name: str, tensor: GGUFTensor) -> None:
    path, _, kind = name.rpartition(".")
    shape = model.get_parameter(name).shape
    parameter = nn.Parameter(tensor.dequantize().view(shape), requires_grad=False)
    model.get_submodule(path).register_parameter(kind, parameter)
