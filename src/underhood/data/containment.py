"""Containment deduplication: documents found almost whole inside longer ones.

Jaccard similarity can't see them: a page whose every word is also in a chapter is a small part of the chapter.
If one of the two were held out, the other would give its text away. So documents are taken from the longest down, and
one whose paragraphs are mostly in those taken before adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SHORTEST_PARAGRAPH = 40
"""Characters below which a paragraph is a heading or a formula, and its repetition says nothing."""


def contained(texts: Sequence[str], share: float) -> dict[int, tuple[int, float]]:
    """Texts of which at least `share` (by characters) is also in longer ones, paragraph by paragraph.

    Spacing and case are set aside. Time and memory grow with the number of paragraphs.

    Returns:
        The text's number → the number of the text that holds most of it, and the share found in all longer ones.
    """
    home: dict[bytes, int] = {}
    holders: dict[int, tuple[int, float]] = {}
    for number in sorted(range(len(texts)), key=lambda n: (-len(texts[n]), n)):
        paragraphs = _paragraphs(texts[number])
        inside: dict[int, int] = {}
        for key, length in paragraphs:
            if key in home:
                inside[home[key]] = inside.get(home[key], 0) + length
        total = sum(length for _, length in paragraphs)
        if total and sum(inside.values()) >= share * total:
            holders[number] = (max(inside, key=lambda n: inside[n]), sum(inside.values()) / total)
            continue
        for key, _ in paragraphs:
            home.setdefault(key, number)
    return holders


def _paragraphs(text: str) -> list[tuple[bytes, int]]:
    """Hash and length of each paragraph worth comparing."""
    squeezed = (" ".join(piece.lower().split()) for piece in text.split("\n\n"))
    return [
        (hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=12).digest(), len(piece))
        for piece in squeezed
        if len(piece) >= SHORTEST_PARAGRAPH
    ]
