"""Views that a file of the page has only if they are asked for: those that are trained first, and a steered text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from underhood.inspect.corpus_values import SKIPPED
from underhood.inspect.probe_tasks import TASKS
from underhood.web.inside.fit_kinds import KINDS
from underhood.web.inside.fitted_views import features
from underhood.web.inside.subjects import Subject

LENS_CHUNK = 32
"""Positions of a lens that the page asks for together (`lens_panel.js`)."""

Request = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Extras:
    """Views that a file has only if they are asked for.

    Attributes:
        trained: the tuned lens, the features of `layer` and the probes, all trained now or read from a folder.
        layer: of the features and of steering; None means the last one.
        toward, away, strength: of a steering vector; None leaves steering out.
        progress: told what is trained, and how far it is.
    """

    trained: bool = False
    layer: int | None = None
    toward: str | None = None
    away: str | None = None
    strength: float = 1.0
    progress: Callable[[str, int, int], None] = lambda _title, _step, _steps: None


def train_all(subject: Subject, extras: Extras) -> list[tuple[str, str]]:
    """Trains what a file shows of it, and returns kinds and variants.

    Raises:
        UserError: no text is known, or it is too short.
    """
    assert subject.others is not None
    wanted = [("tuned", ""), ("features", str(_layer(subject, extras))), *(("probes", task) for task in TASKS)]
    for kind, variant in wanted:
        title = KINDS[kind].title
        subject.others.fits.make(subject.choice.id, subject.loaded, kind, variant, partial(extras.progress, title))
    return wanted


def requests_trained(subject: Subject, extras: Extras) -> Iterator[Request]:
    """The tuned lens, probes, every token's features, the last token's first, and their examples."""
    count, layer = len(subject.ids), _layer(subject, extras)
    for start in range(0, count, LENS_CHUNK):
        yield "tuned", {"start": start, "stop": min(start + LENS_CHUNK, count)}
    yield "divergences", {}
    for task in TASKS:
        yield "probes", {"task": task}
    shown: set[int] = set()
    for position in range(count - 1, -1, -1):
        yield "features", {"layer": layer, "position": position}
        for each in [] if position < SKIPPED else features(subject, layer=layer, position=position).facts["features"]:
            if each["feature"] not in shown:
                shown.add(each["feature"])
                yield "feature", {"layer": layer, "number": each["feature"]}


def requests_steering(subject: Subject, extras: Extras) -> Iterator[Request]:
    """The steered text, if there are texts to steer by."""
    if extras.toward and extras.away:
        yield (
            "steering",
            {
                "toward": extras.toward,
                "away": extras.away,
                "layer": _layer(subject, extras),
                "strength": _number(extras.strength),
            },
        )


def start_of(extras: Extras) -> dict[str, Any]:
    """What the page begins with because of them."""
    start: dict[str, Any] = {} if extras.layer is None else {"layer": extras.layer}
    if extras.toward and extras.away:
        start["steering"] = {
            "toward": extras.toward,
            "away": extras.away,
            "strength": _number(extras.strength),
        }
    return start


def _layer(subject: Subject, extras: Extras) -> int:
    return len(subject.model.blocks) - 1 if extras.layer is None else extras.layer


def _number(value: float) -> int | float:
    """As JavaScript writes it."""
    return int(value) if value == int(value) else value
