"""Tasks for linear probes that any text answers by itself: nobody has to label it.

A label is worked out from the tokens around a token. Whether a layer has it at hand is a question to the layer: the
token before, for one, can only be there once a head has moved it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from underhood.core.errors import UserError, nearest
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED
from underhood.inspect.trace import pieces_of

FREQUENT = 8
"""Classes of the task ``previous``."""

LINE_BOUNDS = (4, 12, 28)
"""Tokens since the line began at which the classes of the task ``line`` change."""

Labels = list[int | None]


@dataclass(frozen=True, repr=False)
class ProbeTask:
    """A question about every token of a text.

    Attributes:
        name: short.
        question: in words.
        classes: the answers, in words.
        label: the answers to the tokens of a window, by number; None where the task does not apply.
    """

    name: str
    question: str
    classes: tuple[str, ...]
    label: Callable[[Sequence[int]], Labels]

    def labels(self, windows: Sequence[Sequence[int]]) -> list[Labels]:
        """The answers to all tokens; the first tokens of windows are left out."""
        return [[None] * min(SKIPPED, len(window)) + self.label(window)[SKIPPED:] for window in windows]

    def __repr__(self) -> str:
        return f"<task {self.name}: {self.question} {', '.join(self.classes)}>"


def previous_token(loaded: LoadedModel, windows: Sequence[Sequence[int]]) -> ProbeTask:
    """Which token came before, if it is one of the most frequent in the windows."""
    counts = Counter(id for window in windows for id in window[SKIPPED:])
    frequent = [id for id, _ in counts.most_common(FREQUENT)]
    number = {id: rank for rank, id in enumerate(frequent)}

    def label(window: Sequence[int]) -> Labels:
        return [None, *(number.get(id) for id in window[:-1])]

    return ProbeTask("previous", "Which token came before?", tuple(pieces_of(loaded, frequent)), label)


def word_end(loaded: LoadedModel, windows: Sequence[Sequence[int]]) -> ProbeTask:
    """Whether the word goes on after a token: the token that follows decides, which the model has not read."""
    ids = sorted({id for window in windows for id in window})
    begins = {id: not loaded.tokenizer.decode([id])[:1].isalnum() for id in ids}

    def label(window: Sequence[int]) -> Labels:
        following = [begins.get(id, not loaded.tokenizer.decode([id])[:1].isalnum()) for id in window[1:]]
        return [*(int(ends) for ends in following), None]

    return ProbeTask("word", "Does the word end here?", ("goes on", "ends"), label)


def line_position(loaded: LoadedModel, windows: Sequence[Sequence[int]]) -> ProbeTask:
    """How far a token is from the beginning of its line, in a few classes."""

    def label(window: Sequence[int]) -> Labels:
        labels: Labels = []
        since: int | None = None  # nobody knows how far a window's first line has come
        for id in window:
            labels.append(None if since is None else sum(since >= bound for bound in LINE_BOUNDS))
            ends = "\n" in loaded.tokenizer.decode([id])
            since = 0 if ends else None if since is None else since + 1
        return labels

    bounds = (0, *LINE_BOUNDS)
    names = [f"{low} to {high - 1} tokens" for low, high in zip(bounds, LINE_BOUNDS, strict=False)]
    return ProbeTask("line", "How far is the line's beginning?", (*names, f"{LINE_BOUNDS[-1]} or more"), label)


TASKS: Mapping[str, Callable[[LoadedModel, Sequence[Sequence[int]]], ProbeTask]] = {
    "previous": previous_token,
    "word": word_end,
    "line": line_position,
}


def probe_task(name: str, loaded: LoadedModel, windows: Sequence[Sequence[int]]) -> ProbeTask:
    """A task by its name, for windows as `inspect.corpus_values.token_windows` gives them.

    Raises:
        UserError: there is none of that name.
    """
    if name not in TASKS:
        near = nearest(name, TASKS)
        raise UserError(
            f"there is no probe task {name!r}", expected=", ".join(TASKS), fix=f"Did you mean {near}?" if near else None
        )
    return TASKS[name](loaded, windows)
