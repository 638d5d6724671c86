"""`optimize_for_inference`: a faster copy of a model, and the one function that chooses how a pass is computed.

The copy has fused layers and, if wanted, weights of 8 or 4 bits. It shares the memory of every weight that stays the
same; the given model is left as it is, to be trained or looked into.
"""

from __future__ import annotations

import copy
import weakref
from typing import Literal, overload

import torch
from torch import nn

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.kernels.cpu_decoder import CpuDecoder
from underhood.kernels.decode_layers import DECODE_BATCH_MAX, UnsupportedModule
from underhood.kernels.fused_layers import fuse as fuse_layers
from underhood.kernels.jit import HAS_NUMBA, uses_kernels, warn_without_numba
from underhood.kernels.small_batch_linear import use_small_batch_linears
from underhood.kernels.weight_only_linear import Int4Linear, Int8Linear, WeightOnlyLinear
from underhood.models.base import BuiltModel
from underhood.models.decoder import Decoder
from underhood.nn.surgery import find_modules

Quantized = Literal["int8", "int4"]
Path = Literal["eager", "fused", "compiled"]

_WEIGHT_ONLY = {"int8": Int8Linear, "int4": Int4Linear}
"""8 bits per weight, and 4.5 as in llama.cpp's q4_0."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class InferenceModel(Decoder):
    """A decoder's copy for inference. See `optimize_for_inference`.

    After the original has been trained on, the copy is out of date: make a new one.
    """

    def __init__(self, original: Decoder):
        nn.Module.__init__(self)
        self.spec, self.position_embed, self.checkpointing = original.spec, None, False
        self.token_count = original.token_count
        for name, child in _copied_children(original).items():
            setattr(self, name, child)
        self.requires_grad_(False).eval()
        self._original = weakref.ref(original)
        self._hooks_of_original = _hook_tables(original)
        self._hooks: list[dict] = []

    @property
    def hooked(self) -> Decoder | None:
        """The model whose modules have forward hooks, which must run: the original, this copy, or None."""
        if any(self._hooks_of_original) and (original := self._original()) is not None:
            return original
        return self if any(self._hooks) else None

    def finish(self) -> InferenceModel:
        """Called when all layers are in place."""
        self._hooks = _hook_tables(self)
        return self


def _copied_children(model: nn.Module) -> dict[str, nn.Module]:
    """New modules over the same weights, without hooks."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer
    for packed in (module for module in model.modules() if isinstance(module, WeightOnlyLinear)):
        memo |= {id(value): value for value in vars(packed).values() if isinstance(value, torch.Tensor)}
    for table in _hook_tables(model):
        memo[id(table)] = type(table)()
    return copy.deepcopy(dict(model.named_children()), memo)


def _hook_tables(model: nn.Module) -> list[dict]:
    return [getattr(module, name) for module in model.modules() for name in _HOOKS]


@overload
def optimize_for_inference(
    model: Decoder, quantize: Quantized | None = None, *, fuse: bool = True
) -> InferenceModel: ...


@overload
def optimize_for_inference(
    model: BuiltModel, quantize: Quantized | None = None, *, fuse: bool = True
) -> BuiltModel: ...


@torch.no_grad()
def optimize_for_inference(model: BuiltModel, quantize: Quantized | None = None, *, fuse: bool = True) -> BuiltModel:
    """A copy of a model that computes the same function faster; the model itself stays as it is.

    Of other models than decoders nothing is known to be faster, so they are returned themselves.

    Args:
        quantize: None keeps the weights as they are; "int8" and "int4" round those of the blocks and of the
            unembedding, and leave embeddings, norms, routers and a capped unembedding alone.
        fuse: one matrix product where several read the same vector.

    Raises:
        UserError: an unknown kind of quantisation; a quantised model elsewhere than on a CPU, or no decoder.
    """
    if not isinstance(model, Decoder):
        if quantize is not None:
            kind = type(model).__name__
            raise UserError("only decoders can be quantised", got=f"a model of kind {kind}", fix="Leave it out")
        return model
    device = device_of(model).type
    if quantize not in (None, "int8", "int4"):
        raise UserError(f"there is no quantisation {quantize!r}", expected="int8 or int4")
    if quantize is not None and device != "cpu":
        raise UserError(f"{quantize} weights work on the CPU only", got=f"a model on {device}", fix="Leave it out")
    if device == "cpu":
        warn_without_numba()
    optimized = InferenceModel(model)
    if fuse:
        fuse_layers(optimized)
    if quantize is None and device == "cpu":
        use_small_batch_linears(optimized)
    if quantize is not None:
        for name, layer in list(find_modules(optimized, ("blocks.*", "unembed"), nn.Linear)):
            if type(layer) is not nn.Linear or name.endswith(".router"):  # a subclass does more than a product
                continue
            parent, _, child = name.rpartition(".")
            setattr(optimized.get_submodule(parent), child, _WEIGHT_ONLY[quantize](layer))
    return optimized.finish()


def compiled_decoder(model: object) -> CpuDecoder | None:
    """The compiled forward pass for a model, or None if it has none. It owns memory: one for each thread."""
    try:
        return CpuDecoder(model) if HAS_NUMBA and isinstance(model, Decoder) else None  # type: ignore[arg-type]
    except UnsupportedModule:
        return None


def select_path(model: object, compiled: CpuDecoder | None, sequences: int, tokens: int) -> tuple[Path, object]:
    """How a pass is computed, and by which model. The table in docs/engine.md says when.

    Args:
        compiled: what `compiled_decoder` gave for the model; its device and number format are decided there.
        sequences, tokens: the shape of the batch.
    """
    if not isinstance(model, InferenceModel):
        return "eager", model
    hooked = model.hooked
    if hooked is not None:
        return ("fused" if hooked is model else "eager"), hooked
    if compiled is not None and uses_kernels() and sequences == 1 and tokens <= DECODE_BATCH_MAX:
        return "compiled", model
    return "fused", model
