"""The table and its descent against scikit-learn's logistic regression, and the identity on a case by hand."""

from __future__ import annotations

import math

import numpy as np
from sklearn.linear_model import LogisticRegression

from underhood.models.bigram import counted, descend, drawn, loss, pairs, softmax


def test_counts_match_scikit_learns_logistic_regression():
    """Without a penalty, multinomial regression on one-hot letters has nothing else to find than the counts."""
    seen = np.random.default_rng(0).integers(1, 30, (27, 27)).astype(float)
    first, second = (np.repeat(location.ravel(), seen.ravel().astype(int)) for location in np.indices(seen.shape))
    model = LogisticRegression(C=1e9, fit_intercept=False, max_iter=2000, tol=1e-10).fit(np.eye(27)[first], second)
    np.testing.assert_allclose(model.predict_proba(np.eye(27)), counted(seen), atol=1e-4)
    W, losses = descend(seen, np.zeros((27, 27)), steps=3000)
    np.testing.assert_allclose(softmax(W), counted(seen), atol=1e-6)
    assert losses[-1] - loss(seen, counted(seen)) < 1e-9


def test_loss_of_counts_is_the_entropy_of_a_fair_choice():
    seen = pairs(["ab", "ac"])  # after a: b or c; after the space always a; after b and c always the space
    assert math.isclose(loss(seen, counted(seen + 1e-300)), 2 * math.log(2) / 6)


def test_loss_is_infinite_where_a_pair_was_ruled_out():
    seen = pairs(["ab"])
    assert loss(seen, np.eye(27)) == math.inf


def test_equal_tables_draw_equal_words_that_end_at_the_space():
    seen = np.random.default_rng(1).integers(1, 30, (27, 27)).astype(float)
    chance = np.random.default_rng(2).random((30, 4000))
    words = drawn(counted(seen), chance)
    assert (words == drawn(counted(2 * seen), chance)).all()
    ended = (words[1:] == 0).cumsum(axis=0) > 0
    assert (words[1:][ended] == 0).all()
    actual = np.bincount(words[0], minlength=27) / words.shape[1]
    np.testing.assert_allclose(actual, counted(seen)[0], atol=0.02)
