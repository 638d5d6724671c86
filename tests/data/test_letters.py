"""Plain English in 27 symbols, the family trees, and the digits."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import shared_data
from underhood.core.errors import UserError
from underhood.data.digits import MNIST_FILES, digits, mnist, resized
from underhood.data.family import PEOPLE, RELATIONS, questions
from underhood.data.letters import ALPHABET, plain, spelled, symbols


@given(st.text())
def test_plain_text_is_made_of_27_symbols_and_comes_back_from_ids(text: str):
    actual = plain(text)
    assert set(actual) <= set(ALPHABET)
    assert "  " not in actual
    assert actual == plain(actual) == actual.strip()
    assert spelled(symbols(actual)) == actual


def test_plain_text_joins_what_an_apostrophe_shortens():
    assert plain("Don't stop: 3 of John’s\nfoo_bar's!") == "dont stop of johns foo bars"


def test_family_trees_give_the_papers_104_questions():
    people, relations, answers = questions()
    assert (len(answers), answers.sum()) == (104, 112)
    known = {
        (PEOPLE[p.argmax()], RELATIONS[r.argmax()]): {PEOPLE[i] for i in np.flatnonzero(a)}
        for p, r, a in zip(people, relations, answers, strict=True)
    }
    assert known["Colin", "aunt"] == {"Jennifer", "Margaret"}
    assert known["Colin", "uncle"] == {"Arthur", "Charles"}
    assert known["Sophia", "father"] == {"Marco"}
    assert known["Arthur", "nephew"] == {"Colin"}
    assert ("Charles", "father") not in known


def test_digits_divide_into_training_and_test_pictures():
    train, test = digits(seed=3)
    assert (len(train), len(test)) == (1438, 359)
    assert 0 <= train.x.min() < train.x.max() <= 1
    again, _ = digits(seed=4)
    assert not np.array_equal(train.y, again.y)


def test_resized_pictures_keep_their_ink():
    _, test = digits()
    assert resized(test, 16).x.shape == (359, 16, 16)
    assert resized(test, 16).x.mean() == pytest.approx(test.x.mean(), abs=0.01)


def test_mnist_reads_the_original_files():
    train, test = mnist(shared_data("vision", "mnist"))
    assert train.x.shape == (60000, 28, 28)
    assert test.x.shape == (10000, 28, 28)
    assert train.x.mean() == pytest.approx(0.1307, abs=1e-3)
    assert np.bincount(test.y).sum() == 10000


def test_mnist_says_what_is_wrong_with_a_file(tmp_path: Path):
    with pytest.raises(UserError, match="is missing"):
        mnist(tmp_path)
    (tmp_path / MNIST_FILES[0]).write_bytes(gzip.compress(b"abc"))
    with pytest.raises(UserError, match="not an idx file"):
        mnist(tmp_path)
