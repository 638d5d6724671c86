"""Sampling options as keyword arguments: ``model.generate("The list", temperature=0.5, seed=1)``."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import TypedDict

from underhood.core.errors import UserError, nearest
from underhood.infer.arguments import kind_of
from underhood.infer.sample import SamplingSpec


class SamplingKeywords(TypedDict, total=False):
    """The fields of `SamplingSpec` as keyword arguments; what is left out is the model's default.

    See `infer.default_sampling`.
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]


def sampling_from(default: SamplingSpec, given: SamplingKeywords) -> SamplingSpec:
    """The default with the given values.

    Raises:
        UserError: an unknown name (the nearest is named), a value of a wrong type, or one out of range.
    """
    for name, value in given.items():
        if name not in SamplingKeywords.__annotations__:
            near = nearest(name, SamplingKeywords.__annotations__)
            raise UserError(
                f"unknown sampling option {name!r}",
                fix=f"Did you mean {near}?" if near else f"There are {', '.join(SamplingKeywords.__annotations__)}",
            )
        if name == "logit_bias":
            _check_bias(value)
        elif isinstance(value, bool) or not (value is None or isinstance(value, Real)):
            raise UserError(f"{name} is not a number", expected="a number", got=repr(value))
        elif name in ("seed", "top_k") and not (value is None or isinstance(value, Integral)):
            raise UserError(f"{name} is not a whole number", expected="a whole number", got=repr(value))
        elif value is None and getattr(SamplingSpec(), name) is not None:
            raise UserError(f"{name} can't be None", expected="a number", got="None")
    return replace(default, **given)


def _check_bias(value: object) -> None:
    pairs = value if isinstance(value, (tuple, list)) else [None]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise UserError("logit_bias is not a list of pairs", expected="((token id, bias), …)", got=kind_of(value))
