"""Cleaning against exact counts: Python sets give the true similarity."""

import random
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.clean import (
    PERMUTATIONS,
    _WordHashes,
    clean,
    jaccard,
    near_duplicates,
    normalise,
    signature,
)
from underhood.data.documents import Corpus, Document

WORDS = [f"word{n}" for n in range(400)]


def corpus_of(*texts):
    return Corpus(tuple(Document(text, f"d{n}", "txt") for n, text in enumerate(texts)), "test")


def passage(rng, length):
    return [rng.choice(WORDS) for _ in range(length)]


def shingles_by_python(text):
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def true_similarity(left, right):
    a, b = shingles_by_python(left), shingles_by_python(right)
    return len(a & b) / len(a | b)


def changed(rng, words, share):
    return [rng.choice(WORDS) if rng.random() < share else word for word in words]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\x0cd\x85e\u2028f", "a\nb\nc\nd\ne\nf"),
        ("e\u0301", "é"),
        ("a\x00b\x07c\x1b\ufeff\td", "abc\td"),
        ("a  \t\nb \n", "a\nb"),
        ("\n\na\n\n\n\n\n\nb\n\n", "a\n\n\nb"),
        ("  indented\n    more", "  indented\n    more"),
    ],
)
def test_normalise_has_one_form_for_each_text(before, after):
    assert normalise(before) == after


@given(st.text(alphabet=" \t\n\r\x0b\x1f\x85\xa0\u2003\u3000ab."))
def test_white_space_at_line_ends_vanishes_as_the_regular_expression_says(text):
    """The expression is right and takes quadratic time; the code splits lines."""
    once = normalise(text)
    assert re.search(r"[^\S\n]+$", once, re.MULTILINE) is None
    assert "".join(once.split()) == "".join(normalise("\n".join(text.split())).split())


def test_a_million_blanks_in_one_line_are_cleaned():
    """100,000 took 37 seconds when every blank was tried as the first of the line's end."""
    blanks = " " * 1_000_000
    assert normalise(f"a{blanks}b\nc{blanks}") == f"a{blanks}b\nc"


@given(st.text())
def test_normalise_is_idempotent_and_nfc(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=50))
def test_normalise_keeps_visible_text(text):
    assert normalise(text) == unicodedata.normalize("NFC", text)


def test_clean_drops_empty_and_exact_duplicates_and_says_so():
    result, report = clean(corpus_of("one text", " \n", "two", "one text\r\n", "\x00"))
    assert [document.name for document in result.documents] == ["d0", "d2"]
    assert [(d.name, d.reason, d.kept) for d in report.dropped] == [
        ("d1", "empty", None),
        ("d3", "duplicate", "d0"),
        ("d4", "empty", None),
    ]
    assert report.reasons == {"empty": 2, "duplicate": 1}
    assert (report.documents_in, report.documents_kept) == (5, 2)
    assert report.documents_kept + len(report.dropped) == report.documents_in
    assert "1 duplicate" in str(report)


def test_jaccard_matches_python_sets():
    rng = random.Random(1)
    for share in (0, 0.02, 0.1, 0.5):
        left = passage(rng, 300)
        right = changed(rng, left, share)
        left, right = " ".join(left), " ".join(right)
        assert jaccard(_WordHashes().shingles(left), _WordHashes().shingles(right)) == true_similarity(left, right)


def test_signature_estimates_jaccard_within_its_standard_error():
    """Broder 1997: each minimum agrees with probability J, so errors are binomial: ± sqrt(J(1−J)/128)."""
    rng = random.Random(2)
    errors = []
    for _ in range(200):
        left = passage(rng, 200)
        right = changed(rng, left, rng.choice([0.01, 0.03, 0.06, 0.15]))
        a, b = _WordHashes().shingles(" ".join(left)), _WordHashes().shingles(" ".join(right))
        true = jaccard(a, b)
        estimate = np.mean(signature(a) == signature(b))
        errors.append((estimate - true) / max(1e-9, (true * (1 - true) / PERMUTATIONS) ** 0.5))
    assert abs(np.mean(errors)) < 0.3  # unbiased (standard error of this mean is 0.07)
    assert 0.8 < np.std(errors) < 1.2
    assert max(map(abs, errors)) < 5


def test_near_duplicates_match_all_exact_comparisons():
    """Oracle: every pair compared as Python sets, greedy in order as documented."""
    rng = random.Random(3)
    texts = []
    for _ in range(25):
        base = passage(rng, rng.randint(30, 300))
        texts.append(" ".join(base))
        texts += [" ".join(changed(rng, base, rng.choice([0.005, 0.02, 0.04, 0.2]))) for _ in range(3)]
    rng.shuffle(texts)
    kept, expected = [], {}
    for number, text in enumerate(texts):
        twin = next((k for k in kept if true_similarity(texts[k], text) >= 0.8), None)
        if twin is None:
            kept.append(number)
        else:
            expected[number] = (twin, true_similarity(texts[twin], text))
    assert 10 < len(expected) < 60
    assert near_duplicates(texts, 0.8) == expected


def test_near_duplicate_is_dropped_and_named_unless_switched_off():
    rng = random.Random(4)
    words = passage(rng, 200)
    near = [*words[:100], "another", *words[101:]]
    corpus = corpus_of(" ".join(words), " ".join(passage(rng, 200)), " ".join(near).upper())
    result, report = clean(corpus)
    assert [document.name for document in result.documents] == ["d0", "d1"]
    (dropped,) = report.dropped
    assert (dropped.reason, dropped.kept) == ("near-duplicate", "d0")
    assert dropped.similarity == pytest.approx(191 / 201)
    assert len(clean(corpus, near_duplicate=None)[0]) == 3


def test_short_texts_are_only_compared_exactly():
    result, _ = clean(corpus_of("Return the sine of x.", "return the sine of X", "Return the sine of x. "))
    assert len(result) == 2


def test_a_thousand_copies_stay_linear():
    """Only kept texts are compared, so one much-copied text costs one comparison per copy, not one per pair."""
    rng = random.Random(5)
    base = passage(rng, 60)
    texts = [" ".join([*base, f"copy{n}"]) for n in range(1000)]
    assert len(near_duplicates(texts)) == 999
