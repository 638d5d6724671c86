"""BM25 against bm25s (Lucene's formula), and against itself built anew."""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Sequence

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.pydocs import pydocs_corpus
from underhood.retrieve.bm25 import BM25, FieldWeight, TermCounts

WORDS = [f"w{number}" for number in range(40)]


def lucene_scores(documents: Sequence[list[str]], query: list[str], *, k1: float, b: float) -> np.ndarray:
    logging.getLogger("bm25s").setLevel(logging.ERROR)
    peer = bm25s.BM25(method="lucene", k1=k1, b=b)
    peer.index(list(documents), show_progress=False)
    known = [term for term in query if term in peer.vocab_dict]
    return peer.get_scores(known) if known else np.zeros(len(documents))


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 1.0), (1.5, 0.0)])
def test_scores_match_bm25s_on_random_text(k1: float, b: float):
    draw = random.Random(0)
    documents = [draw.choices(WORDS, weights=range(1, 41), k=draw.randint(1, 60)) for _ in range(200)]
    index = BM25((FieldWeight(1.0, b),), k1=k1)
    index.add([document] for document in documents)
    for _ in range(20):
        query = draw.choices([*WORDS, "unknown"], k=draw.randint(1, 8))
        assert np.allclose(index.scores(query), lucene_scores(documents, query, k1=k1, b=b), rtol=1e-5, atol=1e-5)


def test_scores_match_bm25s_on_real_text():
    texts = [document.text[:4000] for document in pydocs_corpus().documents[:300]]
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    index = BM25()
    index.add([document] for document in documents)
    for query in ("join two paths", "the most common elements of a list", "compress data with zlib"):
        expected = lucene_scores(documents, query.split(), k1=1.2, b=0.75)
        assert expected.max() > 1
        assert np.allclose(index.scores(query.split()), expected, rtol=1e-5, atol=1e-5)


def test_score_of_one_term_matches_closed_form():
    index = BM25((FieldWeight(1.0, 0.75),), k1=1.2)
    index.add([[["a", "a", "b"]], [["b"]], [["c", "c"]]])
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 1.2 * (1 - 0.75 + 0.75 * 3 / 2))
    assert index.scores(["a"]) == pytest.approx([expected, 0, 0], abs=1e-15)
    assert index.scores({"a": 0.5}) == pytest.approx([expected / 2, 0, 0], abs=1e-15)
    assert index.idf("nothing") == pytest.approx(math.log(1 + 3.5 / 0.5))


def test_fields_match_the_bm25f_formula():
    fields = (FieldWeight(3.0, 0.5), FieldWeight(1.0, 0.75))
    index = BM25(fields, k1=1.2)
    index.add([[["a"], ["a", "b", "b"]], [["c", "d"], ["a"]], [[], ["e"]]])
    average_title, average_text = 3 / 3, 5 / 3
    tf = 3.0 / (0.5 + 0.5 * 1 / average_title) + 1.0 / (0.25 + 0.75 * 3 / average_text)
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    assert index.scores(["a"])[0] == pytest.approx(idf * tf / (tf + 1.2), abs=1e-15)
    assert index.scores(["a"])[2] == 0


documents_strategy = st.lists(
    st.tuples(st.lists(st.sampled_from(WORDS[:8]), max_size=4), st.lists(st.sampled_from(WORDS[:8]), max_size=8)),
    max_size=12,
)
FIELDS = (FieldWeight(2.0, 0.5), FieldWeight(1.0, 0.75))


@given(documents_strategy, documents_strategy, st.randoms(use_true_random=False))
def test_adding_and_removing_equals_rebuilding_bit_for_bit(first, second, draw):
    index = BM25(FIELDS)
    index.add(first)
    index.add(second)
    kept = np.asarray([draw.random() < 0.6 for _ in first + second], bool)
    index.keep(kept)
    rebuilt = BM25(FIELDS)
    rebuilt.add([document for document, stays in zip(first + second, kept, strict=True) if stays])
    assert len(index) == len(rebuilt)
    for term in [*WORDS[:8], "unknown"]:
        assert index.scores([term]).tobytes() == rebuilt.scores([term]).tobytes()
        assert index.idf(term) == rebuilt.idf(term)
    assert sorted(index.vocabulary) == sorted(rebuilt.vocabulary)


def test_restored_index_scores_alike_and_contradictions_are_refused():
    index = BM25(FIELDS)
    index.add([[["a"], ["b", "c"]], [["c"], ["c", "a"]]])
    counts = index.documents
    again = BM25.restore(index.vocabulary, counts, FIELDS)
    assert again.scores(["a", "c"]).tobytes() == index.scores(["a", "c"]).tobytes()
    broken = [
        TermCounts(counts.starts[::-1], counts.terms, counts.counts),
        TermCounts(counts.starts, counts.terms + 100, counts.counts),
        TermCounts(counts.starts, counts.terms[:-1], counts.counts),
        TermCounts(counts.starts, counts.terms, counts.counts[:, :1]),
        TermCounts(counts.starts, counts.terms, -counts.counts),
        TermCounts(counts.starts, counts.terms.astype(float), counts.counts),
    ]
    for arrays in broken:
        with pytest.raises(ValueError, match=r"shape|order|reach|negative"):
            BM25.restore(index.vocabulary, arrays, FIELDS)
