"""Elman's little language: 29 words of 12 categories, and 16 templates of two or three of them.

Elman 1990, tables 3 and 4. The tables show two or three words of each category; the others are in Figure 7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CATEGORIES = {
    "NOUN-HUM": "man woman boy girl",
    "NOUN-ANIM": "cat mouse dog",
    "NOUN-AGRESS": "dragon monster lion",
    "NOUN-INANIM": "book rock car",
    "NOUN-FRAG": "glass plate",
    "NOUN-FOOD": "cookie bread sandwich",
    "VERB-INTRAN": "think sleep exist",
    "VERB-TRAN": "see chase like",
    "VERB-AGPAT": "move break",
    "VERB-PERCEPT": "smell see",
    "VERB-DESTROY": "break smash",
    "VERB-EAT": "eat",
}
TEMPLATES = tuple(
    tuple(name for kind in line.split() for name in CATEGORIES if name == kind)
    for line in """
    NOUN-HUM VERB-EAT NOUN-FOOD
    NOUN-HUM VERB-PERCEPT NOUN-INANIM
    NOUN-HUM VERB-DESTROY NOUN-FRAG
    NOUN-HUM VERB-INTRAN
    NOUN-HUM VERB-TRAN NOUN-HUM
    NOUN-HUM VERB-AGPAT NOUN-INANIM
    NOUN-HUM VERB-AGPAT
    NOUN-ANIM VERB-EAT NOUN-FOOD
    NOUN-ANIM VERB-TRAN NOUN-ANIM
    NOUN-ANIM VERB-AGPAT NOUN-INANIM
    NOUN-ANIM VERB-AGPAT
    NOUN-INANIM VERB-AGPAT
    NOUN-AGRESS VERB-DESTROY NOUN-FRAG
    NOUN-AGRESS VERB-EAT NOUN-HUM
    NOUN-AGRESS VERB-EAT NOUN-ANIM
    NOUN-AGRESS VERB-EAT NOUN-FOOD
    """.strip().splitlines()
)
LEXICON = tuple(dict.fromkeys(word for words in CATEGORIES.values() for word in words.split()))
"""The words, by number; *see* and *break* belong to two categories."""

NUMBERS = {word: number for number, word in enumerate(LEXICON)}
NOUNS = tuple(word for kind, words in CATEGORIES.items() if kind.startswith("NOUN") for word in words.split())
ANIMATES = tuple(word for kind in ("NOUN-HUM", "NOUN-ANIM", "NOUN-AGRESS") for word in CATEGORIES[kind].split())

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def random_sentences(rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
    """Sentences as word numbers: a template at random, and a word of each of its categories at random."""
    options = [[[NUMBERS[word] for word in CATEGORIES[kind].split()] for kind in template] for template in TEMPLATES]
    chosen = rng.integers(len(TEMPLATES), size=count)
    return [tuple(int(rng.choice(words)) for words in options[number]) for number in chosen]


def next_word_chances() -> dict[tuple[int, ...], Floats]:
    """The exact probability of each word (V,) after the words of a sentence so far, the empty beginning included.

    After a sentence that may be over, the next word may also begin the next sentence.
    """
    sentences: dict[tuple[int, ...], float] = {}
    for template in TEMPLATES:
        starts: list[tuple[int, ...]] = [()]
        for kind in template:
            starts = [(*start, NUMBERS[word]) for start in starts for word in CATEGORIES[kind].split()]
        for sentence in starts:
            sentences[sentence] = sentences.get(sentence, 0.0) + 1 / len(TEMPLATES) / len(starts)
    counts: dict[tuple[int, ...], Floats] = {}
    over: dict[tuple[int, ...], float] = {}
    for sentence, chance in sentences.items():
        over[sentence] = chance
        for length, word in enumerate(sentence):
            counts.setdefault(sentence[:length], np.zeros(len(LEXICON)))[word] += chance
    first_V = counts[()]
    chances = {}
    for prefix in counts.keys() | over.keys():
        goes_on_V, ends = counts.get(prefix, np.zeros(len(LEXICON))), over.get(prefix, 0.0)
        chances[prefix] = (goes_on_V + ends * first_V) / (goes_on_V.sum() + ends)
    return chances


def stream(sentences: list[tuple[int, ...]]) -> tuple[Ids, Floats]:
    """All words one after the other (T,), and after each of them the exact chances of the next word (T, V)."""
    chances = next_word_chances()
    prefixes = [sentence[: length + 1] for sentence in sentences for length in range(len(sentence))]
    return np.array([prefix[-1] for prefix in prefixes]), np.stack([chances[prefix] for prefix in prefixes])
