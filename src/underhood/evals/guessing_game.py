"""Shannon's guessing game: a passage whose letters a reader guesses one by one (Shannon 1951, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from underhood.core.errors import UserError

USUAL = " etaoinshrdlcumwfgypbvkjxqz"
"""Symbols by how common they are: the order in which `?` goes on."""


def choose(texts: Sequence[str], *, known: int, letters: int, seed: int | None) -> str:
    """A passage of known + guessed letters that begins at a word.

    Raises:
        UserError: the text is too short.
    """
    length = known + letters
    texts = [text for text in texts if len(text) >= length + 20]
    if not texts:
        raise UserError("the text is too short", expected=f"{length + 20} letters", fix="ask for fewer --letters")
    rng = np.random.default_rng(seed)
    text = texts[int(rng.integers(len(texts)))]
    start = int(rng.integers(len(text) - length - 19))
    start = 0 if start == 0 else text.find(" ", start, start + 20) + 1 or start
    return text[start : start + length]


def play(passage: str, known: int, reads: Callable[[str], str | None], says: Callable[[str], object]) -> list[int]:
    """Lets the reader guess; returns how many guesses each letter took, up to where the reader stopped."""
    guesses: list[int] = []
    for position in range(known, len(passage)):
        tried: list[str] = []
        says("…" + passage[max(0, position - 66) : position].replace(" ", "_") + "▁")
        while passage[position] not in tried:
            line = reads(f"{len(tried) + 1}> ")
            if not line:
                return guesses
            wanted = USUAL if line.strip() == "?" else line.strip().lower().replace("_", " ") or " "
            unknown = [symbol for symbol in wanted if symbol not in USUAL]
            if unknown:
                says(f"  {unknown[0]} is not a letter; there are a to z and _")
                continue
            for symbol in wanted:
                if symbol not in tried:
                    tried.append(symbol)
                if symbol == passage[position]:
                    break
            else:
                says("  no: " + "".join(sorted(tried)).replace(" ", "_"))
        guesses.append(len(tried))
        says(f"  {passage[position].replace(' ', '_')}, guess {len(tried)}")
    return guesses
