"""Names of GGUF tensors: for each parameter of ours the tensor of the file that holds it, and its rows in there.

A file may hold several projections in one tensor (query, key and value; gate and up; all experts of a layer), and
architectures that rotate neighbouring dimensions store the rows of queries and keys in that order. Both are selections
of whole rows, so a parameter is found in the file without a change of any value.

Source: ``gguf.constants.TENSOR_NAMES``; llama.cpp's converter, ``permute``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from underhood.core.errors import UserError
from underhood.models.decoder import DecoderSpec
from underhood.models.gguf_config import Architecture
from underhood.models.gguf_reader import GGUFFile
from underhood.models.gguf_tensor import FLOAT_TYPES, GGUFTensor
from underhood.nn.attention import attention_of

OUTSIDE = {
    "embed": "token_embd",
    "position_embed": "position_embd",
    "norm": "output_norm",
    "unembed": "output",
}
"""Modules outside the blocks, ours to llama.cpp's."""

BLOCK = {
    "mixer_norm": "attn_norm",
    "mixer_post_norm": "post_attention_norm",
    "mixer.query": "attn_q",
    "mixer.key": "attn_k",
    "mixer.value": "attn_v",
    "mixer.output": "attn_output",
    "mixer.query_norm": "attn_q_norm",
    "mixer.key_norm": "attn_k_norm",
    "feedforward_norm": "ffn_norm",
    "feedforward_post_norm": "post_ffw_norm",
    "feedforward.gate": "ffn_gate",
    "feedforward.up": "ffn_up",
    "feedforward.down": "ffn_down",
    "feedforward.router": "ffn_gate_inp",
    "feedforward.shared_expert.gate": "ffn_gate_shexp",
    "feedforward.shared_expert.up": "ffn_up_shexp",
    "feedforward.shared_expert.down": "ffn_down_shexp",
    "feedforward.shared_expert_gate": "ffn_gate_inp_shexp",
}
"""Modules of a block, which llama.cpp calls ``blk.{layer}.{name}``."""

_EXPERT = re.compile(r"feedforward\.experts\.(\d+)\.(gate|up|down)")
_NOT_WEIGHTS = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd\.weight")
"""Tensors that belong to the configuration, or repeat it."""


def gguf_name(name: str) -> str:
    """llama.cpp's name of one of our parameters: ``blocks.3.mixer.query.weight`` → ``blk.3.attn_q.weight``."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, layer, inner = module.split(".", 2)
    return f"blk.{layer}.{BLOCK[inner]}.{kind}"


def parameter_tensors(
    file: GGUFFile, architecture: Architecture, spec: DecoderSpec, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, GGUFTensor]:
    """For each parameter of the model its values in the file, as stored.

    Args:
        shapes: the parameters by name, each shared one once.

    Raises:
        UserError: a tensor is missing, superfluous or of another shape.
    """
    finder = _Finder(file, architecture, spec, shapes)
    result = {name: finder.find(name) for name in shapes}
    extra = [name for name in file.tensors if name not in finder.used and not _NOT_WEIGHTS.fullmatch(name)]
    if extra:
        raise UserError(f"{file.path} holds a tensor the model has no place for: {extra[0]!r} ({len(extra)} in all)")
    return result


class _Finder:
    """Finds parameters in the file's tensors, and remembers which it used."""

    def __init__(
        self, file: GGUFFile, architecture: Architecture, spec: DecoderSpec, shapes: Mapping[str, tuple[int, ...]]
    ):
        self.file, self.architecture, self.spec, self.shapes = file, architecture, spec, shapes
        self.used: set[str] = set()

    def find(self, name: str) -> GGUFTensor:
        """The tensor of one parameter.

        Raises:
            UserError: it is missing or of another shape.
        """
        shape = self.shapes[name]
        tensor = self._stored(name)
        if name.endswith("norm.weight") and self.architecture.norm_shift:
            tensor = replace(tensor, shift=self.architecture.norm_shift)
        if self.architecture.interleaved and re.search(r"mixer\.(query|key)\.", name):
            tensor = _rows_of(tensor, half_split_order(self._heads(name), shape[0]))
        if tensor.shape != shape and tensor.shape in ((shape[-1],), (1, *shape)):
            tensor = tensor.reshaped(*shape)  # a matrix of one row is stored as a vector
        if tensor.shape != shape:
            raise UserError(
                f"{self.file.path}: tensor {tensor.name!r} has the wrong shape",
                expected=str(shape),
                got=str(tensor.shape),
            )
        return tensor

    def _heads(self, name: str) -> int:
        mixer = attention_of(self.spec.block(int(name.split(".")[1])).mixer)
        assert mixer is not None  # every architecture here attends
        return mixer.heads if ".query." in name else mixer.groups

    def _stored(self, name: str) -> GGUFTensor:
        """The tensor that holds a parameter, or its share of one that holds several."""
        module, _, kind = name.rpartition(".")
        if match := _EXPERT.search(module):
            return self._expert(name, module.split(".")[1], int(match[1]), match[2])
        stored = gguf_name(name)
        if module.startswith("blocks."):
            prefix, end = module.rpartition(".")[0], stored.split(".")[1]
            qkv, gate = f"blk.{end}.attn_qkv.{kind}", f"blk.{end}.ffn_gate.{kind}"
            if module.endswith((".query", ".key", ".value")) and qkv in self.file.tensors:
                siblings = [f"{prefix}.{projection}.{kind}" for projection in ("query", "key", "value")]
                return self._share(qkv, name, siblings)
            fused = f"{prefix}.gate.{kind}" in self.shapes and gate not in self.file.tensors
            if module.endswith((".feedforward.gate", ".feedforward.up")) and fused:
                siblings = [f"{prefix}.{projection}.{kind}" for projection in ("gate", "up")]
                return self._share(f"blk.{end}.ffn_up.{kind}", name, siblings)
        return self._tensor(stored)

    def _share(self, stored: str, name: str, siblings: list[str]) -> GGUFTensor:
        """The rows of one parameter in a tensor that holds several below each other."""
        tensor = self._tensor(stored)
        lengths = [self.shapes[sibling][0] for sibling in siblings]
        if tensor.shape != (sum(lengths), *self.shapes[name][1:]):
            expected = str((sum(lengths), *self.shapes[name][1:]))
            raise UserError(
                f"{self.file.path}: tensor {stored!r} has the wrong shape", expected=expected, got=str(tensor.shape)
            )
        index = siblings.index(name)
        return _rows_of(tensor, slice(sum(lengths[:index]), sum(lengths[: index + 1])))

    def _expert(self, name: str, layer: str, expert: int, matrix: str) -> GGUFTensor:
        """The matrix of one expert: all of a layer's experts are one tensor, in files of 2023 each is its own."""
        rows = self.shapes[name][0]
        both, single = f"blk.{layer}.ffn_gate_up_exps.weight", f"blk.{layer}.ffn_{matrix}.{expert}.weight"
        if matrix != "down" and both in self.file.tensors:
            first = 2 * rows * expert + (rows if matrix == "up" else 0)
            return self._tensor(both).rows(slice(first, first + rows))
        if single in self.file.tensors:
            return self._tensor(single)
        return self._tensor(f"blk.{layer}.ffn_{matrix}_exps.weight").rows(slice(rows * expert, rows * (expert + 1)))

    def _tensor(self, name: str) -> GGUFTensor:
        if name not in self.file.tensors:
            raise UserError(f"{self.file.path} lacks the tensor {name!r}")
        self.used.add(name)
        return self.file.tensors[name]


def half_split_order(heads: int, rows: int) -> NDArray[np.integer]:
    """Where the rows for rotations of halves (i, i + K/2) are among rows for rotations of neighbours (2i, 2i + 1)."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _rows_of(tensor: GGUFTensor, order: slice | NDArray[np.integer]) -> GGUFTensor:
    """Rows of a matrix, or values of a vector."""
    if len(tensor.shape) > 1:
        return tensor.rows(order)
    if tensor.type not in FLOAT_TYPES:
        raise UserError(f"the vector {tensor.name!r} is quantised", expected="floats", got=tensor.type.name)
    selected = tensor.column().rows(order)
    return selected.reshaped(selected.values)
