"""Operations of a forward pass: which modules of a decoder run, in what order, and the formula of each.

The list is recorded from a pass of the model itself, so it holds for any mixer or feed-forward. What runs inside a
module without a module of its own (the fused attention, the product of a gated feed-forward) is added where it happens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underhood.infer.cache import device_of
from underhood.models.decoder import Decoder
from underhood.nn.attention import Attention, AttentionWeights, Rotary
from underhood.nn.embedding import ScaledEmbedding
from underhood.nn.feedforward import MLP, GatedMLP
from underhood.nn.moe import Choice
from underhood.nn.norm import RMSNorm
from underhood.nn.softcap import SoftcappedLinear
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm

ATTEND, UNITS = "attend", "units"


@dataclass(frozen=True)
class Operation:
    """One step of the forward pass.

    Attributes:
        name: the module's path in the model; with ``attend`` or ``units`` after the layer's for what has no module.
        kind: the class of the module.
        formula: in words of algebra.
        inputs, outputs: numbers per token that go in and come out.
        weights: shape of the matrix, if there is one.
        layer: which block it is in; None for the ends.
        sublayer: the block's sublayer that it belongs to, such as ``mixer``.
    """

    name: str
    kind: str
    formula: str
    inputs: int
    outputs: int
    weights: tuple[int, ...] | None
    layer: int | None
    sublayer: str | None


def formula_of(module: nn.Module) -> str:
    """What a module computes, in one line."""
    for kind, words in FORMULAS:
        if isinstance(module, kind):
            return words(module)
    return (inspect.getdoc(type(module)) or type(module).__name__).split(". ")[0].split("\n\n")[0].replace("\n", " ")


def _linear(module: nn.Module) -> str:
    return "y = W x" + ("" if getattr(module, "bias", None) is None else " + b")


FORMULAS: tuple[tuple[type[nn.Module], Callable[[Any], str]], ...] = (
    (SoftcappedLinear, lambda m: "y = cap · tanh(W x / cap)"),
    (ScaledEmbedding, lambda m: "y = scale · row of the token"),
    (nn.Embedding, lambda m: "y = row of the token"),
    (nn.Linear, _linear),
    (ZeroCenteredRMSNorm, lambda m: "y = x / √(mean(x²) + ε) · (1 + g)"),
    (RMSNorm, lambda m: "y = x / √(mean(x²) + ε) · g"),
    (nn.LayerNorm, lambda m: "y = (x − mean(x)) / √(var(x) + ε) · g + b"),
    (Rotary, lambda m: "turns each pair of dimensions by position · θ^(−2i/K)"),
    (nn.Identity, lambda m: "y = x + what the sublayer adds"),
    (Choice, lambda m: f"the {m.active} experts with the largest softmax(x)"),
)


def formula_of_attention(mixer: Attention) -> str:
    spec = mixer.spec
    inner = "q·k / √K" if spec.scale is None else f"q·k · {spec.scale:.3g}"
    if spec.softcap is not None:
        inner = f"cap · tanh({inner} / cap)"
    seen = "" if spec.window is None else f" over the last {spec.window} tokens"
    return f"y = Σ softmax({inner}) · v{seen}"


def formula_of_units(layer: MLP | GatedMLP) -> str:
    name = layer.spec.activation.replace("gelu_tanh", "gelu")
    return f"y = {name}(gate) · up" if isinstance(layer, GatedMLP) else f"y = {name}(up)"


@torch.no_grad()
def operations_of(model: Decoder) -> list[Operation]:
    """The operations of a pass over a single token, in order."""
    listed: list[Operation] = []
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def on_output(_module: nn.Module, inputs: Any, output: Any) -> None:
            if any(operation.name == name for operation in listed):
                return  # an expert that runs again
            listed.append(describe(name, module, inputs[0], output))

        handles.append(module.register_forward_hook(on_output))

    for name, module in model.named_modules():
        leaf = not any(module.children())
        unused_norm = isinstance(module, nn.Identity) and not name.endswith("_residual")
        expert = ".experts." in name
        # A hook on the weights would make attention write them out, in place of the fused kernel.
        silent = unused_norm or expert or isinstance(module, nn.ParameterList | AttentionWeights)
        if name and leaf and not silent:
            watch(name, module)
    try:
        model(torch.zeros(1, 1, dtype=torch.long, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return with_inner(model, listed)


def describe(name: str, module: nn.Module, x: Any, y: Any) -> Operation:
    words = name.split(".")
    inside = words[0] == "blocks"
    sublayer = words[2] if inside else None
    for suffix in ("_stream_norm", "_post_norm", "_norm", "_residual"):
        sublayer = sublayer.removesuffix(suffix) if sublayer else None
    weight = getattr(module, "weight", None)
    return Operation(
        name=name,
        kind="residual stream" if name.endswith("_residual") else type(module).__name__,
        formula=formula_of(module),
        inputs=per_token(x) if x is not None and torch.is_floating_point(x) else 1,
        outputs=per_token(y[0] if isinstance(y, tuple) else y),
        weights=tuple(weight.shape) if isinstance(weight, Tensor) else None,
        layer=int(words[1]) if inside else None,
        sublayer=sublayer,
    )


def per_token(value: Tensor) -> int:
    """How many numbers a value of a single token has."""
    return math.prod(value.shape)


def with_inner(model: Decoder, listed: list[Operation]) -> list[Operation]:
    """The list with what modules compute between their own modules: before the matrix that reads it."""
    complete: list[Operation] = []
    for operation in listed:
        if operation.layer is not None and operation.sublayer is not None:
            owner = model.blocks[operation.layer]._modules[operation.sublayer]
            stem = f"blocks.{operation.layer}.{operation.sublayer}"
            layer, sublayer, width = operation.layer, operation.sublayer, operation.inputs
            if isinstance(owner, Attention) and operation.name == f"{stem}.output":
                words = formula_of_attention(owner)
                complete.append(Operation(f"{stem}.{ATTEND}", "attention", words, width, width, None, layer, sublayer))
            if isinstance(owner, MLP | GatedMLP) and operation.name == f"{stem}.down":
                words = formula_of_units(owner)
                complete.append(
                    Operation(f"{stem}.{UNITS}", "hidden units", words, width, width, None, layer, sublayer)
                )
        complete.append(operation)
    return complete
