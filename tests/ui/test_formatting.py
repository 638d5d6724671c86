"""Number formats: few digits, true minus signs, no impossible units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.ui.formatting import compact, count, duration, exact, minutes, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.42 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3840, "1 h 04 min"),
    ],
)
def test_duration_rounds_without_impossible_units(seconds: float, text: str):
    assert duration(seconds, " ") == text


def test_count_and_size_keep_three_digits():
    values = (0, 999, 1000, 41234, 999_499, 999_500, 3.3e6, 7.24e9)
    assert [count(n, " ") for n in values] == ["0", "999", "1.00 k", "41.2 k", "999 k", "1.00 M", "3.30 M", "7.24 B"]
    assert [size(n, " ") for n in (950, 1024, 2.4e6, 1e9)] == ["950 B", "1.02 kB", "2.40 MB", "1.00 GB"]


@given(st.floats(min_value=0, max_value=9.9e14))
def test_count_is_within_half_a_percent(number: float):
    text = count(number, " ")
    digits, _, unit = text.partition(" ")
    value = float(digits.replace(",", "")) * {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[unit]
    assert value == pytest.approx(number, rel=0.0051, abs=0.51)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (8639, "8,639"), (0.2130, "0.213"), (1.5e-7, "1.5·10⁻⁷"), (1e6, "10⁶"), (-0.535, "−0.535"), (24, "24")],
)
def test_compact_keeps_three_digits(value, words):
    assert compact(value) == words


def test_exact_keeps_all_digits_of_whole_numbers():
    assert [exact(v) for v in (1_234_567, 0.98765, "about 3", -2)] == ["1,234,567", "0.988", "about 3", "−2"]


def test_minutes_are_rounded_as_estimates():
    assert [minutes(m, " ") for m in (0, 0.5, 1.4, 59.4, 95)] == ["0 s", "30 s", "1 min", "59 min", "1 h 35 min"]
