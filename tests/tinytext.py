"""A small text of our own that a build accepts: enough to fill a few contexts, quick to read, the same every time."""

from __future__ import annotations

import random
from pathlib import Path

SUBJECTS = [
    "the gardener",
    "a river",
    "the night train",
    "our neighbour",
    "a lighthouse",
    "the old clock",
    "a falcon",
    "the baker",
]
VERBS = ["carries", "remembers", "crosses", "follows", "repairs", "counts", "watches", "leaves"]
OBJECTS = [
    "the valley",
    "seven lanterns",
    "a letter",
    "the harbour",
    "its own shadow",
    "the market",
    "fresh snow",
    "a quiet street",
]
TIMES = [
    "before sunrise",
    "in late autumn",
    "without a word",
    "on every second Tuesday",
    "for the first time",
    "until it rains",
]


def paragraph(draw: random.Random) -> str:
    """Five sentences."""
    output = (" ".join(map(draw.choice, (SUBJECTS, VERBS, OBJECTS, TIMES))) for _ in range(5))
    return " ".join(words[0].upper() + words[1:] + "." for words in output)


def write_notes(folder: Path, *, documents: int = 40, paragraphs: int = 4) -> Path:
    """Writes the text as a folder of .txt files (about 1 kB each by default)."""
    draw = random.Random(7)
    folder.mkdir(parents=True)
    for number in range(documents):
        text = "\n\n".join(paragraph(draw) for _ in range(paragraphs))
        (folder / f"note{number:02}.txt").write_text(text + "\n", encoding="utf-8")
    return folder
