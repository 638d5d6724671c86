"""Lagrange's formula against numpy.polyfit and exact fractions, and shares that were worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from underhood.path.p2021_secret_sharing.run import LARGE, at_zero, shares, through


@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5, unique_by=lambda point: point[0]
    )
)
def test_lagrange_matches_numpys_polyfit_and_hits_its_points(points: list[tuple[int, int]]):
    curve = np.polyfit([x for x, _ in points], [y for _, y in points], len(points) - 1)
    np.testing.assert_allclose(float(through(points, Fraction(1, 2))), np.polyval(curve, 0.5), rtol=1e-5, atol=1e-5)
    assert all(through(points, x) == y for x, y in points)


@given(st.lists(st.integers(0, LARGE - 1), min_size=3, max_size=3), st.permutations(range(1, 8)))
def test_any_three_shares_of_a_large_secret_restore_it(f: list[int], order: list[int]):
    dealt = shares(f, 7, LARGE)
    assert at_zero([(x, dealt[x - 1]) for x in order[:3]], LARGE) == f[0]


def test_shares_by_hand():
    assert shares((3, 5, 2), 5, 7) == [3, 0, 1, 6, 1]  # 3 + 5x + 2x² modulo 7
    assert at_zero([(1, 3), (3, 1), (4, 6)], 7) == 3
