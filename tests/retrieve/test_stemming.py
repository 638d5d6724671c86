"""The light stemmer against the same steps of NLTK's Porter stemmer."""

from __future__ import annotations

import re

import pytest
from nltk.stem.porter import PorterStemmer

from underhood.data.pydocs import pydocs_corpus
from underhood.retrieve.stemming import stem


def test_stem_matches_porters_steps_1_and_5_of_nltk():
    peer = PorterStemmer(PorterStemmer.ORIGINAL_ALGORITHM)
    words = set(re.findall(r"[a-z]+", " ".join(d.text for d in pydocs_corpus().documents).lower()))
    assert len(words) > 10_000
    for word in words:
        expected = word
        if len(word) > 2:
            for step in (peer._step1a, peer._step1b, peer._step1c, peer._step5a, peer._step5b):
                expected = step(expected)
        assert stem(word) == expected, word


@pytest.mark.parametrize("forms", ["copy copies copied copying", "remove removes removed removing", "path paths"])
def test_forms_of_a_word_share_a_stem(forms: str):
    assert len({stem(word) for word in forms.split()}) == 1


def test_words_of_different_meaning_stay_apart():
    assert len({stem(word) for word in ("general", "generate", "generator", "string", "strong")}) == 5


def test_other_alphabets_and_short_words_stay():
    assert [stem(word) for word in ("os", "größen", "b64s", "пути")] == ["os", "größen", "b64s", "пути"]
