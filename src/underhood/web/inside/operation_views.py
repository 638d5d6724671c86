"""Panels of the forward walk: the operations, and what each makes of the prompt, number by number."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError, nearest
from underhood.nn.attention import Attention, Rotary
from underhood.nn.feedforward import ACTIVATIONS, MLP, GatedMLP
from underhood.nn.norm import RMSNorm
from underhood.nn.softcap import SoftcappedLinear
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm
from underhood.web.inside.operation_values import TokenRows, listed_operations, output_of, rows_at
from underhood.web.inside.operations import ATTEND, UNITS, Operation
from underhood.web.inside.packing import Payload, exact, half, signed
from underhood.web.inside.subjects import Subject

EXAMPLES, TERMS = 3, 5
HALF_MAX, COLUMNS_MAX = 250_000, 2_048


def operations(subject: Subject) -> Payload:
    """What the model computes, in order."""
    return Payload({"operations": [asdict(operation) for operation in listed_operations(subject)]})


@torch.no_grad()
def operation(subject: Subject, *, name: str, position: int, rows: str = "all") -> Payload:
    """An operation's output for every token, and three of its numbers at one token with the sums that make them.

    Args:
        rows: ``one`` for the values at the token alone.
    """
    at = subject.at(position)
    known = {each.name: each for each in listed_operations(subject)}
    if name not in known:
        near = nearest(name, [*known])
        raise UserError(f"this model has no operation {name!r}", fix=f"Did you mean {near}?" if near else "")
    chosen = known[name]
    rows_only = rows == "one"
    kept = rows_at(subject, at)
    row_N = kept.outputs[name]
    values_TN = row_N[None] if rows_only else output_of(subject, chosen)
    per_cell = -(-values_TN.shape[1] // COLUMNS_MAX)
    facts = {
        "operation": asdict(chosen),
        "shape": [len(subject.ids), len(row_N)],
        "examples": examples(subject, chosen, kept),
        "columns_per_cell": per_cell,
        "rows": rows,
    }
    if per_cell > 1:
        values_TN = strongest(values_TN, per_cell)
    packed = half(values_TN) if values_TN.numel() <= HALF_MAX else signed(values_TN)
    return Payload(facts, {"values": packed, "row": exact(row_N[: 2 * COLUMNS_MAX])})


def strongest(values_TN: Tensor, count: int) -> Tensor:
    """The value of largest size in each group of neighbouring columns."""
    padded_TN = torch.nn.functional.pad(values_TN, (0, -values_TN.shape[1] % count))
    grouped_TGN = padded_TN.unflatten(1, (-1, count))
    return grouped_TGN.gather(2, grouped_TGN.abs().argmax(dim=2, keepdim=True))[..., 0]


def examples(subject: Subject, operation: Operation, rows: TokenRows) -> list[dict[str, Any]]:
    """Three of an operation's numbers at a token, those of largest size, and how they come about."""
    y_N = rows.outputs[operation.name]
    indices = y_N.abs().topk(min(EXAMPLES, len(y_N))).indices.tolist()
    if operation.name.endswith(f".{ATTEND}"):
        made = [_weighted_sum(subject, operation, rows.position, index) for index in indices]
    elif operation.name.endswith(f".{UNITS}"):
        made = [_unit(subject, operation, rows, index) for index in indices]
    else:
        module = subject.model.get_submodule(operation.name)
        made = [_example(subject, module, operation, rows, index) for index in indices]
    return [{"index": index, "value": float(y_N[index])} | each for index, each in zip(indices, made, strict=True)]


def _example(subject: Subject, module: nn.Module, operation: Operation, rows: TokenRows, index: int) -> dict[str, Any]:
    x_N, value = rows.inputs[operation.name], float(rows.outputs[operation.name][index])
    if isinstance(module, nn.Linear | SoftcappedLinear):
        return _dot(module, x_N, index)
    if isinstance(module, nn.Embedding):
        row = int(x_N[0])
        return {"words": [["row", row], ["column", index], ["weight", float(module.weight[row, index])]]}
    if isinstance(module, RMSNorm | ZeroCenteredRMSNorm | nn.LayerNorm):
        return _normalised(module, x_N, index)
    x = float(x_N[index]) if len(x_N) > index else 0.0
    if isinstance(module, Rotary):
        return {"words": [["before", x], ["position", rows.position]]}
    site = f"{operation.sublayer}.{operation.layer}"
    if isinstance(module, nn.Identity) and site in subject.trace.values:
        added = float(subject.trace[site][rows.position, index])
        return {"words": [["before", value - added], ["added", added]], "sum": value}
    return {"words": [["x", x]]}


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


def _dot(module: nn.Linear | SoftcappedLinear, x_N: Tensor, index: int) -> dict[str, Any]:
    """A row of a matrix times the input: the largest terms, and the sum of all."""
    w_N = module.weight[index].detach().double().cpu()
    products_N = w_N * x_N.double()
    bias = getattr(module, "bias", None)
    own = 0.0 if bias is None else float(bias[index])
    largest = products_N.abs().topk(min(TERMS, len(products_N))).indices.tolist()
    terms = [{"j": j, "w": float(w_N[j]), "x": float(x_N[j]), "product": float(products_N[j])} for j in largest]
    total = float(products_N.sum())
    rest = total - sum(term["product"] for term in terms)
    facts: dict[str, Any] = {"terms": terms, "rest": rest, "others": len(w_N) - len(terms), "sum": total + own}
    facts["bias"] = None if bias is None else own
    if isinstance(module, SoftcappedLinear):
        facts["words"] = [["before the cap", total]]
    return facts


def _weighted_sum(subject: Subject, operation: Operation, at: int, index: int) -> dict[str, Any]:
    """A number of what attention reads: weights times values, the largest terms first."""
    layer = operation.layer
    assert layer is not None
    mixer = subject.model.blocks[layer].mixer
    assert isinstance(mixer, Attention)
    head, k = divmod(index, mixer.head_dim)
    weights_T = subject.trace.pattern(layer, [head])[0, at]
    group = head // (mixer.spec.heads // mixer.spec.groups)
    values_T = subject.trace[f"value.{layer}"][group, :, k]
    products_T = weights_T.double() * values_T.double()
    largest = products_T.abs().topk(min(TERMS, at + 1)).indices.tolist()
    terms = [
        {"j": j, "w": float(weights_T[j]), "x": float(values_T[j]), "product": float(products_T[j])} for j in largest
    ]
    total = float(products_T.sum())
    rest = total - sum(term["product"] for term in terms)
    facts = {"head": head, "terms": terms, "tokens": True, "rest": rest, "others": at + 1 - len(terms)}
    return facts | {"bias": None, "sum": total}


def _unit(subject: Subject, operation: Operation, rows: TokenRows, index: int) -> dict[str, Any]:
    """A hidden unit: the activation of what the gate says, times what is let through."""
    stem = operation.name.rpartition(".")[0]
    layer = subject.model.get_submodule(stem)
    assert isinstance(layer, MLP | GatedMLP)
    x = rows.inputs[operation.name][index]
    total = active = float(ACTIVATIONS[layer.spec.activation](x))
    words = [["gate" if isinstance(layer, GatedMLP) else "up", float(x)], [f"{layer.spec.activation} of it", active]]
    if isinstance(layer, GatedMLP):
        up = float(rows.outputs[f"{stem}.up"][index])
        words.append(["up", up])
        total = active * up
    return {"words": words, "sum": total}
