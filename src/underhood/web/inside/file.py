"""A file of the page that needs no server and no network: the views that a reader most likely wants, within a size."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underhood.core.files import write_text
from underhood.ui.theme import asset, content_security_policy, script_data
from underhood.web.inside.bundle import bundle
from underhood.web.inside.file_extras import (
    LENS_CHUNK,
    Extras,
    Request,
    requests_steering,
    requests_trained,
    start_of,
    train_all,
)
from underhood.web.inside.operation_values import listed_operations
from underhood.web.inside.routes import start_facts
from underhood.web.inside.subjects import InsideModels, Subject
from underhood.web.inside.views import answer, request_key
from underhood.web.page_files import SHARED, STATIC

LIMIT = 3_000_000
"""Bytes of a file."""

FACTORS = 6
"""Factors that the page begins with (`factors_panel.js`)."""

KEPT_BACK = 20_000
"""Bytes for the names of what is in the file."""

UNTRAINED = "This file holds nothing that is trained first: --trained FOLDER trains it, and puts it into the file."


@dataclass
class HeldViews:
    """Views in a file: packed, by subject and request, until there is no more room."""

    room: int
    subjects: list[dict[str, str]] = field(default_factory=list)
    views: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    def add(self, subject: Subject, request: Request) -> None:
        """Works a view out and keeps it if there is room, or the reason why it does not apply."""
        own = {"model": subject.choice.id, "prompt": subject.prompt}
        if own not in self.subjects:
            self.subjects.append(own)
        key = f"{self.subjects.index(own)}&{request_key(*request)}"
        if key in self.views:
            return
        if self.room < 0:
            self.left_out += 1
            return
        packed = base64.b64encode(zlib.compress(answer(subject, *request).to_bytes(), 9)).decode()
        size = len(packed) + len(key.encode()) + 6
        if size > self.room:
            self.left_out += 1
            return
        self.room -= size
        self.views[key] = packed


def render_file(
    models: InsideModels,
    prompt: str,
    *,
    against: str | None = None,
    extras: Extras = Extras(),  # noqa: B008, it is frozen
    limit: int = LIMIT,
) -> str:
    """The page for a model and a prompt as HTML.

    Args:
        against: another prompt, for patching and comparison.
        extras: what it has beyond the views that need no training.
        limit: bytes that it may have.

    Raises:
        UserError: the prompt is not one for this model, or something can't be trained.
    """
    early, late = asset("theme.js"), bundle(STATIC, "inside/main.js")
    held = HeldViews(limit - len((early + late).encode()) - _styles_size() - KEPT_BACK)
    first = models.subject(models.first, prompt)
    for request in [*requests_first(first), *requests_steering(first, extras)]:
        held.add(first, request)
    fits = train_all(first, extras) if extras.trained else []
    for request in requests_trained(first, extras) if extras.trained else []:
        held.add(first, request)
    for request in [*requests_through(first), *requests_of_all(first)]:
        held.add(first, request)
    if against is not None:
        for direction in ({}, {"direction": "out"}):
            held.add(first, ("patch", {"against": against} | direction))
        for request in requests_beside(models.subject(models.first, against)):
            held.add(models.subject(models.first, against), request)
    for id in models.choices:
        if held.room > 0:
            other = models.subject(id, prompt)
            for request in requests_beside(other):
                held.add(other, request)
    for request in requests_last(first):
        held.add(first, request)
    payload = {
        "start": start_facts(models, prompt) | start_of(extras),
        "fits": [f"0&{kind}&{variant}" for kind, variant in fits],
        "untrained": UNTRAINED,
        "subjects": held.subjects,
        "views": held.views,
        "left_out": held.left_out,
        "again": "This file holds the views of its last token and the small ones of all; underhood inspect shows all.",
    }
    return assemble(early, late, payload)


def write_file(
    path: Path,
    models: InsideModels,
    prompt: str,
    *,
    against: str | None = None,
    extras: Extras = Extras(),  # noqa: B008, it is frozen
) -> int:
    """Writes the page and returns its size in bytes.

    Raises:
        UserError: the file can't be written, or as `render_file`.
    """
    text = render_file(models, prompt, against=against, extras=extras)
    write_text(path, text)
    return len(text.encode())


def requests_beside(subject: Subject) -> Iterator[Request]:
    """The views of another stage, checkpoint or prompt."""
    count = len(subject.ids)
    yield "overview", {}
    yield "outcome", {}
    for start in range(0, count, LENS_CHUNK):
        yield "lens", {"start": start, "stop": min(start + LENS_CHUNK, count)}


def requests_first(subject: Subject) -> Iterator[Request]:
    """What everything else needs, and what is seen first: the views of the last token."""
    last = len(subject.ids) - 1
    yield from requests_beside(subject)
    for name in ("operations", "checks", "merges", "heads", "experts", "induction", "paths", "similarity"):
        yield name, {}
    for name in ("parts", "attribution", "ablation", "ranks"):
        yield name, {"position": last}
    yield "factors", {"count": max(2, min(FACTORS, last))}
    for layer in subject.attending:
        yield "row", {"layer": layer, "position": last}


def requests_through(subject: Subject) -> Iterator[Request]:
    """The training of the run that the subject is of, and the heads whose loss changes the last prediction most."""
    last = len(subject.ids) - 1
    if subject.choice.run is not None:
        yield "training", {"position": last}
        yield "training_induction", {}
    for top in answer(subject, "ablation", {"position": last}).facts.get("largest", ()):
        for what in ("zero", "mean"):
            yield "cut", {"layer": top["layer"], "head": top["head"], "position": last, "what": what}


def requests_of_all(subject: Subject) -> Iterator[Request]:
    """The patterns of every head, and the parts of every token's score."""
    for layer in reversed(subject.attending):
        yield "patterns", {"layer": layer}
    for position in range(len(subject.ids) - 1):
        yield "parts", {"position": position}


def requests_last(subject: Subject) -> Iterator[Request]:
    """Single numbers at the last token: of every head's weights, and of every operation."""
    last = len(subject.ids) - 1
    for layer in reversed(subject.attending):
        for head in range(subject.trace.attention[layer].heads):
            yield "why", {"layer": layer, "head": head, "position": last}
    for operation in listed_operations(subject):
        yield "operation", {"name": operation.name, "position": last, "rows": "one"}


STYLES = re.compile(r'<link rel="stylesheet" href="/static/([^"]+)">\n')


def _style(name: str) -> str:
    return asset(name) if name in SHARED else (STATIC / name).read_text(encoding="utf-8")


def _document() -> str:
    return (STATIC / "inside.html").read_text(encoding="utf-8")


def _styles_size() -> int:
    return sum(len(_style(name).encode()) for name in STYLES.findall(_document())) + len(_document().encode())


def assemble(early: str, late: str, payload: dict[str, Any]) -> str:
    """The served document with its styles, scripts and data inside, and a policy that lets nothing else in."""
    document = _document()
    styles = "".join(_style(name) for name in STYLES.findall(document))
    policy = f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(early, late)}">\n'
    data = f'<script type="application/json" id="payload">{script_data(payload)}</script>\n'
    document = STYLES.sub("", document)
    for tag, inside in (
        ('<link rel="icon" href="/static/icon.svg" type="image/svg+xml">\n', ""),
        ('<meta name="referrer" content="no-referrer">\n', policy + '<meta name="referrer" content="no-referrer">\n'),
        ('<script src="/static/theme.js"></script>\n', f"<style>{styles}</style>\n<script>{early}</script>\n"),
        ('<script type="module" src="/static/inside/main.js"></script>\n', ""),
        ("</body>\n", f'{data}<script type="module">{late}</script>\n</body>\n'),
    ):
        before, present, after = document.partition(tag)
        assert present, tag
        document = before + inside + after
    return document
