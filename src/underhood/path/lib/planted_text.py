"""Text with planted relations: a made-up language in which who a word keeps company with is known exactly.

Each word has a row and a column (king: the ruler's row, the male column). Around it are words of its row and words of
its column, and fillers that mean nothing. So the difference between two columns is the same in every row, which is what
analogies are about.
"""

from __future__ import annotations

import numpy as np

RELATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "gender": (
        ("king", "queen"), ("prince", "princess"), ("uncle", "aunt"), ("brother", "sister"), ("father", "mother"),
        ("actor", "actress"), ("waiter", "waitress"), ("monk", "nun"),
    ),
    "capital": (
        ("france", "paris"), ("italy", "rome"), ("japan", "tokyo"), ("egypt", "cairo"), ("peru", "lima"),
        ("kenya", "nairobi"), ("norway", "oslo"), ("cuba", "havana"),
    ),
    "plural": (
        ("cat", "cats"), ("house", "houses"), ("river", "rivers"), ("stone", "stones"), ("cloud", "clouds"),
        ("book", "books"), ("horse", "horses"), ("lamp", "lamps"),
    ),
}  # fmt: skip
"""Words by relation, each row with its two columns."""

COMPANIONS, FILLERS = 6, 300


def planted_sentences(sentences: int, *, seed: int) -> list[list[str]]:
    """Sentences of five words: one of `RELATIONS` among two companions and two fillers, in any order."""
    rng = np.random.default_rng(seed)
    words = [
        (word, f"{relation}-row{row}", f"{relation}-column{column}")
        for relation, rows in RELATIONS.items()
        for row, pair in enumerate(rows)
        for column, word in enumerate(pair)
    ]
    text = []
    for _ in range(sentences):
        word, row, column = words[rng.integers(len(words))]
        sentence = [word, f"{row}-{rng.integers(COMPANIONS)}", f"{column}-{rng.integers(COMPANIONS)}"]
        sentence += [f"filler{rng.integers(FILLERS)}" for _ in range(2)]
        text.append([sentence[n] for n in rng.permutation(5)])
    return text


def planted_questions() -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """All analogy questions ``a : b = c : d`` of each relation, in both directions."""
    return [
        (
            relation,
            [(a[side], a[1 - side], c[side], c[1 - side]) for a in rows for c in rows if a is not c for side in (0, 1)],
        )
        for relation, rows in RELATIONS.items()
    ]
