"""A map of word vectors as a page: words used alike lie together; a click or a search shows a word's neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from underhood.inspect.tsne import tsne
from underhood.models.word_vectors import WordVectors
from underhood.ui.theme import page_renderer, script_data

NEIGHBOURS = 8
"""Nearest words that are listed for each."""

_render = page_renderer(Path(__file__).parent)


def word_map(
    vectors: WordVectors, *, words: int = 500, title: str, progress: Callable[[int, int], None] | None = None
) -> str:
    """The page: a map of the most frequent words by t-SNE of their vectors at length 1.

    Args:
        words: how many; the neighbours that are listed are among them.

    Raises:
        ValueError: fewer than 12 words.
    """
    payload = map_data(vectors, words=words, progress=progress)
    return _render(
        "word_map.html.j2",
        ["word_map.css"],
        ["word_map.js"],
        title=title,
        total=len(vectors.words),
        shown=len(payload["words"]),
        width=vectors.vectors_VD.shape[1],
        payload=script_data(payload),
    )


def map_data(
    vectors: WordVectors, *, words: int = 500, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """What the page draws: words by frequency, places in −1 … 1, and each word's nearest with cosines."""
    count = min(words, len(vectors.words))
    if count < 12:
        raise ValueError(f"a map needs 12 words or more, got {count}")
    unit_ND = vectors.unit_VD[:count]
    places_N2 = tsne(unit_ND, perplexity=min(15.0, count / 4), progress=progress)
    places_N2 = places_N2 / np.abs(places_N2).max(axis=0)
    shown = WordVectors(vectors.words[:count], vectors.vectors_VD[:count])
    near = [[[other, round(cosine, 3)] for other, cosine in shown.nearest(word, NEIGHBOURS)] for word in shown.words]
    return {"words": list(shown.words), "places": places_N2.round(4).tolist(), "near": near}
