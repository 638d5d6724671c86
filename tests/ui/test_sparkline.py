"""Rows of numbers as bars."""

from __future__ import annotations

import math

from underhood.ui.sparkline import sparkline


def test_bars_reach_from_the_least_to_the_largest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 0]) == "█▁"


def test_bounds_that_are_given_hold():
    assert sparkline([0.5, 2, -3], 0, 1) == "▅█▁"


def test_what_is_not_a_number_is_blank():
    assert sparkline([1, math.nan, 2, math.inf]) == "▁ █ "
    assert sparkline([]) == ""
    assert sparkline([3, 3]) == "▁▁"
