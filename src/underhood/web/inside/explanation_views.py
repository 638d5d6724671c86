"""The panel of attribution: what each token counts for a prediction, with the curves that judge each method."""

from __future__ import annotations

import torch

from underhood.inspect.attribution import attribute
from underhood.inspect.deletion import deletion_curves
from underhood.inspect.target import Target
from underhood.web.inside.packing import Payload, exact
from underhood.web.inside.stream_views import likeliest, token_named
from underhood.web.inside.subjects import Subject
from underhood.web.token_view import token_facts

ORDERS = 12
"""Random orders beside a deletion or insertion curve."""


def attribution(subject: Subject, *, position: int, answer: str = "", other: str = "") -> Payload:
    """How much each token counts for a score, by every method, each with its deletion and insertion curves.

    Curves of random orders are beside them.
    """
    target = target_of(subject, position, answer, other)
    methods = attribute(subject.loaded, subject.ids, target)
    deleted, inserted = (
        deletion_curves(subject.loaded, methods, insertion=back, orders=ORDERS) for back in (False, True)
    )
    facts = {
        "target": target_named(subject, target),
        "score": methods[0].score,
        "methods": [
            {
                "name": method.method,
                "baseline": method.baseline,
                "error": method.error,
                "area": curve.area,
                "gain": curve.gain,
                "insertion_area": back.area,
                "insertion_gain": back.gain,
            }
            for method, curve, back in zip(methods, deleted, inserted, strict=True)
        ],
        "random_area": deleted[0].random_area,
        "random_deviation": deleted[0].random_deviation,
        "insertion_random_area": inserted[0].random_area,
        "insertion_random_deviation": inserted[0].random_deviation,
        "replacement": deleted[0].replacement,
        "counts": list(deleted[0].counts),
    }
    arrays = {
        "values": exact(torch.stack([method.values for method in methods])),
        "curves": exact(torch.stack([curve.scores for curve in deleted])),
        "random": exact(deleted[0].random.mean(dim=0)),
        "insertion": exact(torch.stack([curve.scores for curve in inserted])),
        "insertion_random": exact(inserted[0].random.mean(dim=0)),
    }
    return Payload(facts, arrays)


def target_of(subject: Subject, position: int, answer: str, other: str) -> Target:
    """The score that is explained: of `answer` or the likeliest token, minus that of `other` if it is named."""
    at = subject.at(position)
    token = token_named(subject, answer) if answer else likeliest(subject, at)
    return Target(token=token, against=token_named(subject, other) if other else None, position=at)


def target_named(subject: Subject, target: Target) -> str:
    """A score in words."""
    tokens = [target.token] if target.against is None else [target.token, target.against]
    return target.named([token_facts(subject.loaded.tokenizer, token)["shown"] for token in tokens])
