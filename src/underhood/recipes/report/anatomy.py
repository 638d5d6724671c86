"""Anatomy of a model: its parameters by module and the cost of training a token, counted on the built module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from underhood.core.errors import UserError

PARTS = {
    "embedding": "token embedding",
    "mixer": "attention",
    "feedforward": "feed-forward",
    "norm": "norms",
    "unembedding": "unembedding",
}


@dataclass(frozen=True)
class Anatomy:
    """A model's parameters by part (a tied unembedding counts once, as embedding), and its costs.

    Attributes:
        parts: parameters by the keys of `PARTS`, empty parts left out.
        training_flops: floating-point operations per token of a forward and backward pass.
        facts: the spec in words, for a list.
    """

    parts: dict[str, int]
    training_flops: float
    facts: dict[str, str]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def anatomy(spec: Mapping[str, Any] | None) -> Anatomy | None:
    """Counts the parts of the model that `spec` (as tagged JSON) describes.

    None when there is no spec, or one that this version can't build: the report then does without.
    """
    if not spec:
        return None
    import torch
    from torch import nn

    from underhood.core.config import from_json
    from underhood.core.protocols import ModelSpec
    from underhood.train.plan import training_flops

    try:
        model_spec = from_json(ModelSpec, dict(spec), where="spec")
        with torch.device("meta"):  # shapes without memory
            model = cast(nn.Module, model_spec.build())
        cost = training_flops(model_spec)
    except (UserError, ValueError, TypeError):
        return None
    parts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        parts[_part(name)] += parameter.numel()
    return Anatomy({key: value for key, value in parts.items() if value}, cost, model_spec.facts())


def _part(name: str) -> str:
    if re.match(r"(position_)?embed\.", name):
        return "embedding"
    if name.startswith("unembed."):
        return "unembedding"
    if re.search(r"_?norm\.", name):
        return "norm"
    return "mixer" if ".mixer." in name else "feedforward"
