"""Panels that explain a prediction: attribution to tokens with its deletion curves, and ablation of every head."""

from __future__ import annotations

import torch

from underhood.inspect.ablation_grid import head_grid
from underhood.inspect.attribution import attribute
from underhood.inspect.deletion import deletion_curves
from underhood.inspect.target import Target
from underhood.web.inside.packing import Payload, exact
from underhood.web.inside.stream_views import likeliest, token_named
from underhood.web.inside.subjects import Subject
from underhood.web.token_view import token_facts

ORDERS = 12
"""Random orders beside a deletion curve."""


def attribution(subject: Subject, *, position: int, answer: str = "", other: str = "") -> Payload:
    """How much each token counts for a score, by every method, each with its deletion curve beside random orders."""
    target = _target(subject, position, answer, other)
    methods = attribute(subject.loaded, subject.ids, target)
    curves = deletion_curves(subject.loaded, methods, orders=ORDERS)
    random_NC = curves[0].random
    facts = {
        "target": _named(subject, target),
        "score": methods[0].score,
        "methods": [
            {
                "name": method.method,
                "baseline": method.baseline,
                "error": method.error,
                "area": curve.area,
                "gain": curve.gain,
            }
            for method, curve in zip(methods, curves, strict=True)
        ],
        "random_area": curves[0].random_area,
        "random_deviation": curves[0].random_deviation,
        "replacement": curves[0].replacement,
        "counts": list(curves[0].counts),
    }
    arrays = {
        "values": exact(torch.stack([method.values for method in methods])),
        "curves": exact(torch.stack([curve.scores for curve in curves])),
        "random": exact(random_NC.mean(dim=0)),
    }
    return Payload(facts, arrays)


def ablation(subject: Subject, *, position: int, answer: str = "", other: str = "", mode: str = "mean") -> Payload:
    """How a score changes when a head is silenced, head by head."""
    target = _target(subject, position, answer, other)
    grid = head_grid(subject.loaded, subject.ids, target, mode="zero" if mode == "zero" else "mean")
    top = [{"layer": layer, "head": head, "change": change} for layer, head, change in grid.largest(5)]
    facts = {"target": _named(subject, target), "score": grid.score, "mode": grid.mode, "largest": top}
    return Payload(facts, {"changes": exact(grid.changes)})


def _target(subject: Subject, position: int, answer: str, other: str) -> Target:
    at = subject.at(position)
    token = token_named(subject, answer) if answer else likeliest(subject, at)
    return Target(token=token, against=token_named(subject, other) if other else None, position=at)


def _named(subject: Subject, target: Target) -> str:
    tokens = [target.token] if target.against is None else [target.token, target.against]
    return target.named([token_facts(subject.loaded.tokenizer, token)["shown"] for token in tokens])
