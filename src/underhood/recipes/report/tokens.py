"""The token strip: a text as its tokens, each with its id and its exact bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from underhood.ui.visible_bytes import visible

MOST = 400
"""Tokens shown at most; a longer sample is cut, and the page says so."""


@dataclass(frozen=True)
class Chip:
    """One token as it is drawn.

    Attributes:
        text: what is written on it: ``·`` for a space, ``⏎`` for a newline, ``⇥`` for a tab, bytes as ``⟨e2 80⟩``
            where they are not a whole UTF-8 character.
        breaks: a line ends after it.
        level: 0 to 4 by its length: 1, 2, 3–4, 5–7, 8 or more bytes.
        rank: 0 to 4 by its id, that is by how early the tokenizer learnt it.
    """

    id: int
    text: str
    hex: str
    bytes: int
    breaks: bool
    level: int
    rank: int


def chips(sample: Iterable[Sequence[object]], vocab_size: int) -> list[Chip]:
    """Chips of the pairs ``[id, "hex bytes"]``; a pair of another form is passed over."""
    strip: list[Chip] = []
    for pair in sample:
        try:
            token, raw = int(str(pair[0])), bytes.fromhex(str(pair[1]))
        except (ValueError, IndexError, TypeError):
            continue
        level = sum(len(raw) >= bound for bound in (2, 3, 5, 8))
        rank = 0 if token < 256 else min(1 + 4 * (token - 256) // max(vocab_size - 256, 1), 4)
        strip.append(Chip(token, visible(raw), raw.hex(" "), len(raw), b"\n" in raw, level, rank))
        if len(strip) == MOST:
            break
    return strip
