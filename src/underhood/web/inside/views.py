"""The page's views by name, with their parameters checked: the same for the server and for the file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from underhood.core.errors import UserError, nearest
from underhood.web.inside import (
    ablation_views,
    attention_views,
    comparison_views,
    explanation_views,
    fitted_views,
    merge_views,
    operation_views,
    representation_views,
    stream_views,
    token_views,
    training_views,
)
from underhood.web.inside.packing import Payload
from underhood.web.inside.subjects import Subject

VIEWS: Mapping[str, Callable[..., Payload]] = {
    "overview": token_views.overview,
    "outcome": token_views.outcome,
    "generation": token_views.generation,
    "merges": merge_views.merges,
    "checks": stream_views.checks,
    "lens": stream_views.lens,
    "parts": stream_views.parts,
    "patch": stream_views.patch,
    "stream": stream_views.stream,
    "heads": attention_views.heads,
    "patterns": attention_views.patterns,
    "head": attention_views.head,
    "row": attention_views.row,
    "why": attention_views.why,
    "experts": attention_views.experts,
    "attribution": explanation_views.attribution,
    "ablation": ablation_views.ablation,
    "cut": ablation_views.cut,
    "difference": comparison_views.difference,
    "ranks": representation_views.ranks,
    "factors": representation_views.factors,
    "paths": representation_views.paths,
    "similarity": representation_views.similarity,
    "induction": representation_views.induction,
    "tuned": fitted_views.tuned,
    "divergences": fitted_views.divergences,
    "features": fitted_views.features,
    "feature": fitted_views.feature,
    "steering": fitted_views.steering,
    "probes": fitted_views.probes,
    "training": training_views.training,
    "training_induction": training_views.training_induction,
    "operations": operation_views.operations,
    "operation": operation_views.operation,
}
"""What a panel can ask for: a function of a subject and named parameters."""


def view(subject: Subject, name: str, given: Mapping[str, Any]) -> Payload:
    """A view's payload.

    Raises:
        UserError: as `checked`, or the view does not apply to this model or prompt.
    """
    parameters = checked(name, given)
    return VIEWS[name](subject, **parameters)


def answer(subject: Subject, name: str, given: Mapping[str, Any]) -> Payload:
    """A view's payload, or the reason why it does not apply.

    Raises:
        UserError: as `checked`.
    """
    parameters = checked(name, given)
    try:
        return VIEWS[name](subject, **parameters)
    except UserError as error:
        return Payload.refusal(str(error))


def checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a view.

    Raises:
        UserError: there is no such view or parameter, or one is missing or of another type.
    """
    if name not in VIEWS:
        near = nearest(name, [*VIEWS])
        fix = f"Did you mean {near}?" if near else ""
        raise UserError(f"the page has no view {name!r}", expected=", ".join(VIEWS), fix=fix)
    function = VIEWS[name]
    known = {key: each for key, each in inspect.signature(function).parameters.items() if key != "subject"}
    types = get_type_hints(function)
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"the view {name} has no {unknown[0]!r}", expected=", ".join(known) or "nothing")
    missing = [key for key, each in known.items() if each.default is inspect.Parameter.empty and key not in given]
    if missing:
        raise UserError(f"the view {name} needs {missing[0]!r}")
    return {key: _as(types[key], key, value) for key, value in given.items()}


def _as(wanted: type, name: str, value: Any) -> Any:
    accepted = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not accepted or isinstance(value, bool):
        raise UserError(f"{name} is not {wanted.__name__}", got=repr(value)[:40])
    return wanted(value)


def request_key(name: str, given: Mapping[str, Any]) -> str:
    """A view and its parameters as a single string, as `static/inside/source.js` writes it."""
    return "&".join([name, *(f"{key}={given[key]}" for key in sorted(given))])
