"""Panels of the forward walk: the operations, and what each makes of the prompt, number by number."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError, nearest
from underhood.infer.cache import device_of
from underhood.inspect.sites import Hookable
from underhood.inspect.trace import recording
from underhood.nn.attention import Attention, Rotary
from underhood.nn.feedforward import ACTIVATIONS, MLP, GatedMLP
from underhood.nn.norm import RMSNorm
from underhood.nn.softcap import SoftcappedLinear
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm
from underhood.web.inside.operations import ATTEND, UNITS, Operation, operations_of
from underhood.web.inside.packing import Payload, exact, half, signed
from underhood.web.inside.subjects import Subject

EXAMPLES, TERMS = 3, 5
HALF_MAX, COLUMNS_MAX = 250_000, 2_048


def operations(subject: Subject) -> Payload:
    """What the model computes, in order."""
    return Payload({"operations": [asdict(operation) for operation in operations_of(subject.model)]})


def operation(subject: Subject, *, name: str, position: int, rows: str = "all") -> Payload:
    """An operation's output for every token, and three of its numbers at one token with the sums that make them.

    Args:
        rows: ``one`` for the values at the token alone.
    """
    at = subject.at(position)
    known = {each.name: each for each in operations_of(subject.model)}
    if name not in known:
        near = nearest(name, [*known])
        raise UserError(f"this model has no operation {name!r}", fix=f"Did you mean {near}?" if near else "")
    chosen = known[name]
    x_TN, y_TN = run(subject, chosen)
    facts = {
        "operation": asdict(chosen),
        "shape": list(y_TN.shape),
        "examples": examples(subject, chosen, x_TN, y_TN, at),
        "largest": float(y_TN.abs().max()),
    }
    columns = y_TN[at : at + 1] if rows == "one" else y_TN
    facts["columns_per_cell"] = per_cell = -(-columns.shape[1] // COLUMNS_MAX)
    if per_cell > 1:
        columns = strongest(columns, per_cell)
    packed = half(columns) if columns.numel() <= HALF_MAX else signed(columns)
    facts["rows"] = rows
    return Payload(facts, {"values": packed, "row": exact(y_TN[at, : 2 * COLUMNS_MAX])})


def strongest(values_TN: Tensor, count: int) -> Tensor:
    """The value of largest size in each group of neighbouring columns."""
    padded_TN = torch.nn.functional.pad(values_TN, (0, -values_TN.shape[1] % count))
    grouped_TGN = padded_TN.unflatten(1, (-1, count))
    return grouped_TGN.gather(2, grouped_TGN.abs().argmax(dim=2, keepdim=True))[..., 0]


@torch.no_grad()
def run(subject: Subject, operation: Operation) -> tuple[Tensor, Tensor]:
    """What goes into an operation and comes out of it, for each of the prompt's tokens."""
    model = subject.model
    stem, _, last = operation.name.rpartition(".")
    if last == ATTEND:
        return _of(subject, f"{stem}.value", "output"), _of(subject, f"{stem}.output", "input")
    if last == UNITS:
        gated = isinstance(model.get_submodule(stem), GatedMLP)
        return _of(subject, f"{stem}.{'gate' if gated else 'up'}", "output"), _of(subject, f"{stem}.down", "input")
    return _of(subject, operation.name, "input"), _of(subject, operation.name, "output")


def _of(subject: Subject, name: str, side: Any) -> Tensor:
    """A module's input or output, (T, N)."""
    kept: list[Tensor] = []

    def keep(_site: str, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        if isinstance(value, Tensor) and not kept:
            kept.append(value.detach().cpu())

    with torch.no_grad(), recording({name: Hookable(subject.model.get_submodule(name), side)}, keep):
        subject.model(torch.tensor([subject.ids], device=device_of(subject.model)))
    value = kept[0]
    if isinstance(subject.model.get_submodule(name), Rotary):  # (1, H, T, K)
        value = value.transpose(1, 2)
    return value.reshape(len(subject.ids), -1).float()


def examples(subject: Subject, operation: Operation, x_TN: Tensor, y_TN: Tensor, at: int) -> list[dict[str, Any]]:
    """Three of an operation's numbers at a token, those of largest size, and how they come about."""
    indices = y_TN[at].abs().topk(min(EXAMPLES, y_TN.shape[1])).indices.tolist()
    if operation.name.endswith(f".{ATTEND}"):
        return [_weighted_sum(subject, operation, y_TN, at, index) for index in indices]
    if operation.name.endswith(f".{UNITS}"):
        return [_unit(subject, operation, x_TN, y_TN, at, index) for index in indices]
    module = subject.model.get_submodule(operation.name)
    return [{"index": index} | _example(subject, module, operation, x_TN, y_TN, at, index) for index in indices]


def _example(
    subject: Subject, module: nn.Module, operation: Operation, x_TN: Tensor, y_TN: Tensor, at: int, index: int
) -> dict[str, Any]:
    value = float(y_TN[at, index])
    if isinstance(module, nn.Linear | SoftcappedLinear):
        return _dot(module, x_TN[at], index, value)
    if isinstance(module, nn.Embedding):
        raw = float(module.weight[subject.ids[at], index])
        return {"value": value, "words": [["row", subject.ids[at]], ["column", index], ["weight", raw]]}
    x = float(x_TN[at, index]) if x_TN.shape[1] > index else 0.0
    if isinstance(module, RMSNorm | ZeroCenteredRMSNorm | nn.LayerNorm):
        return {"value": value} | _normalised(module, x_TN[at], index)
    if isinstance(module, Rotary):
        return {"value": value, "words": [["before", x], ["position", at]]}
    if isinstance(module, nn.Identity) and operation.layer is not None:
        added = _added(subject, operation, at, index)
        if added is not None:
            return {"value": value, "words": [["before", value - added], ["added", added]], "sum": value}
    return {"value": value, "words": [["x", x]]}


def _normalised(module: RMSNorm | ZeroCenteredRMSNorm | nn.LayerNorm, x_N: Tensor, index: int) -> dict[str, Any]:
    """A number of a norm: of the whole stream, or of the head that it is in."""
    width = len(module.weight)
    start = index - index % width
    row, own, x = x_N[start : start + width].double(), index - start, float(x_N[index])
    if isinstance(module, nn.LayerNorm):
        mean, size = float(row.mean()), float((row.var(correction=0) + module.eps).sqrt())
        gain, bias = float(module.weight[own]), 0.0 if module.bias is None else float(module.bias[own])
        words = [["x", x], ["mean", mean], ["√(var + ε)", size], ["g", gain], ["b", bias]]
        return {"words": words, "sum": (x - mean) / size * gain + bias}
    size = float((row.square().mean() + module.spec.eps).sqrt())
    gain = float(module.weight[own]) + isinstance(module, ZeroCenteredRMSNorm)
    return {"words": [["x", x], ["√(mean(x²) + ε)", size], ["g", gain]], "sum": x / size * gain}


def _dot(module: nn.Linear | SoftcappedLinear, x_N: Tensor, index: int, value: float) -> dict[str, Any]:
    """A row of a matrix times the input: the largest terms, and the sum of all."""
    w_N = module.weight[index].detach().double().cpu()
    products_N = w_N * x_N.double()
    bias = getattr(module, "bias", None)
    own = 0.0 if bias is None else float(bias[index])
    largest = products_N.abs().topk(min(TERMS, len(products_N))).indices.tolist()
    terms = [{"j": j, "w": float(w_N[j]), "x": float(x_N[j]), "product": float(products_N[j])} for j in largest]
    total = float(products_N.sum())
    rest = total - sum(term["product"] for term in terms)
    facts = {"value": value, "terms": terms, "rest": rest, "others": len(w_N) - len(terms), "sum": total + own}
    facts["bias"] = None if bias is None else own
    if isinstance(module, SoftcappedLinear):
        facts["words"] = [["before the cap", total]]
    return facts


def _weighted_sum(subject: Subject, operation: Operation, y_TN: Tensor, at: int, index: int) -> dict[str, Any]:
    """A number of what attention reads: weights times values, the largest terms first."""
    layer = operation.layer
    assert layer is not None
    mixer = subject.model.blocks[layer].mixer
    assert isinstance(mixer, Attention)
    head, k = divmod(index, mixer.head_dim)
    weights_T = subject.trace.pattern(layer, [head])[0, at]
    group = head // (mixer.spec.heads // mixer.spec.groups)
    values_T = _of(subject, f"blocks.{layer}.{operation.sublayer}.value", "output")[:, group * mixer.head_dim + k]
    products_T = weights_T.double() * values_T.double()
    largest = products_T.abs().topk(min(TERMS, at + 1)).indices.tolist()
    terms = [
        {"j": j, "w": float(weights_T[j]), "x": float(values_T[j]), "product": float(products_T[j])} for j in largest
    ]
    total = float(products_T.sum())
    return {
        "index": index,
        "head": head,
        "value": float(y_TN[at, index]),
        "terms": terms,
        "tokens": True,
        "rest": total - sum(term["product"] for term in terms),
        "others": at + 1 - len(terms),
        "bias": None,
        "sum": total,
    }


def _unit(subject: Subject, operation: Operation, x_TN: Tensor, y_TN: Tensor, at: int, index: int) -> dict[str, Any]:
    """A hidden unit: the activation of what the gate says, times what is let through."""
    stem = operation.name.rpartition(".")[0]
    layer = subject.model.get_submodule(stem)
    assert isinstance(layer, MLP | GatedMLP)
    x = x_TN[at, index]
    active = float(ACTIVATIONS[layer.spec.activation](x))
    words = [["gate" if isinstance(layer, GatedMLP) else "up", float(x)], [f"{layer.spec.activation} of it", active]]
    total = active
    if isinstance(layer, GatedMLP):
        up = float(_of(subject, f"{stem}.up", "output")[at, index])
        words.append(["up", up])
        total = active * up
    return {"index": index, "value": float(y_TN[at, index]), "words": words, "sum": total}


def _added(subject: Subject, operation: Operation, at: int, index: int) -> float | None:
    """What a sublayer adds to a number of the residual stream, as the trace has it."""
    site = f"{operation.sublayer}.{operation.layer}"
    return float(subject.trace[site][at, index]) if site in subject.trace.values else None
