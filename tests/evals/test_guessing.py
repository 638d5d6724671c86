"""Shannon's bounds from guesses, against sources whose entropy is known and against his own table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.evals.guessing import bounds, bounds_intervals, conditional_entropy, ranks, shares


def test_bounds_match_shannons_table_of_1951():
    low, high = bounds((80, 7, 0, 3, 4, 2, 1, 0, 1, 0, 0, 1, 0, 1))
    assert round(low, 2) == 0.59
    assert round(high, 2) == 1.24


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 3))
def test_bounds_enclose_the_entropy_of_a_source_whose_best_guesser_plays(seed: int, flatness: float):
    p = np.random.default_rng(seed).dirichlet(np.full(27, flatness), size=27)
    weight = np.random.default_rng(seed).dirichlet(np.ones(27))
    entropy = -(weight[:, None] * p * np.log2(np.maximum(p, 1e-300))).sum()
    low, high = bounds(weight @ -np.sort(-p, axis=1))  # exact shares: the i-th guess is the i-th likeliest
    assert low <= entropy + 1e-9
    assert entropy <= high + 1e-9


def test_bounds_are_equal_where_guesses_say_nothing_or_everything():
    assert bounds([1.0]) == (0.0, 0.0)
    assert bounds(np.ones(27)) == pytest.approx((np.log2(27), np.log2(27)))


def test_ranks_count_the_guesses_of_one_who_takes_the_likeliest_first():
    scores = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4], [0.3, 0.3, 0.4]])
    assert ranks(scores, np.array([2, 0, 1])).tolist() == [2, 2, 3]


@pytest.mark.parametrize("guesses", [[], [0], [28]])
def test_shares_refuse_what_is_no_number_of_guesses(guesses: list[int]):
    with pytest.raises(ValueError, match="from 1 to 27"):
        shares(guesses)


def test_bounds_intervals_shrink_with_more_letters():
    guesses = [1] * 8 + [2, 5]
    few, _ = bounds_intervals(guesses, resamples=200)
    many, _ = bounds_intervals(guesses * 40, resamples=200)
    assert few.low <= few.value <= few.high
    assert many.high - many.low < few.high - few.low


def test_conditional_entropy_of_a_chain_is_its_entropy():
    rng = np.random.default_rng(0)
    stays = rng.random(200_000) < 0.9
    chain = np.cumsum(~stays) % 2
    h = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert conditional_entropy(chain, 1) == pytest.approx(1.0, abs=0.01)
    assert conditional_entropy(chain, 2) == pytest.approx(h, abs=0.01)
    assert conditional_entropy(chain, 3) == pytest.approx(h, abs=0.01)
