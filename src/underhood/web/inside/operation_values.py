"""Values of operations: one operation's output for every token, and all operations' inputs and outputs at one token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underhood.infer.cache import device_of
from underhood.inspect.sites import Hookable
from underhood.inspect.trace import recording
from underhood.nn.attention import Rotary
from underhood.nn.feedforward import GatedMLP
from underhood.web.inside.operations import ATTEND, UNITS, Operation, operations_of
from underhood.web.inside.subjects import Subject


@dataclass(frozen=True)
class TokenRows:
    """What goes into every operation and comes out of it, at one token.

    Attributes:
        position: the token.
        inputs, outputs: by the operation's name.
    """

    position: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def listed_operations(subject: Subject) -> list[Operation]:
    """The operations of the subject's model, listed once."""
    if "operations" not in subject.memory:
        subject.memory["operations"] = operations_of(subject.model)
    return subject.memory["operations"]


def rows_at(subject: Subject, position: int) -> TokenRows:
    """All operations at a token, from a single pass; the last one asked for is kept."""
    kept = subject.memory.get("rows")
    if not isinstance(kept, TokenRows) or kept.position != position:
        subject.memory["rows"] = kept = _record(subject, position)
    return kept


def output_of(subject: Subject, operation: Operation) -> Tensor:
    """An operation's output for every token of the prompt, (T, N)."""
    stem, _, last = operation.name.rpartition(".")
    if last == ATTEND:
        return values_of(subject, f"{stem}.output", "input")
    if last == UNITS:
        return values_of(subject, f"{stem}.down", "input")
    return values_of(subject, operation.name, "output")


def values_of(subject: Subject, name: str, side: Any) -> Tensor:
    """A module's input or output for every token of the prompt, (T, N)."""
    kept: list[Tensor] = []
    module = subject.model.get_submodule(name)

    def keep(_site: str, value: Any) -> None:
        if not kept:
            kept.append(as_rows(module, value, len(subject.ids)))

    with torch.no_grad(), recording({name: Hookable(module, side)}, keep):
        subject.model(torch.tensor([subject.ids], device=device_of(subject.model)))
    return kept[0]


def as_rows(module: nn.Module, value: Any, tokens: int) -> Tensor:
    """A value of one prompt as a matrix of its tokens on the CPU; a token's heads after one another."""
    tensor = value[0] if isinstance(value, tuple) else value
    if isinstance(module, Rotary):  # (1, H, T, K)
        tensor = tensor.transpose(1, 2)
    return tensor.detach().reshape(tokens, -1).float().cpu()


@torch.no_grad()
def _record(subject: Subject, position: int) -> TokenRows:
    model, tokens = subject.model, len(subject.ids)
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []
    listed = listed_operations(subject)
    modules = dict(model.named_modules())
    for name in (operation.name for operation in listed if operation.name in modules):

        def on_output(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
            inputs.setdefault(name, as_rows(module, given[0], tokens)[position])
            outputs.setdefault(name, as_rows(module, output, tokens)[position])

        handles.append(modules[name].register_forward_hook(on_output))
    try:
        model(torch.tensor([subject.ids], device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    for operation in listed:  # those without a module of their own
        stem, _, last = operation.name.rpartition(".")
        if last == ATTEND:
            inputs[operation.name], outputs[operation.name] = outputs[f"{stem}.value"], inputs[f"{stem}.output"]
        elif last == UNITS:
            gated = isinstance(modules[stem], GatedMLP)
            inputs[operation.name] = outputs[f"{stem}.{'gate' if gated else 'up'}"]
            outputs[operation.name] = inputs[f"{stem}.down"]
    return TokenRows(position, inputs, outputs)
