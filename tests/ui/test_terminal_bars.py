"""Bars in the terminal: lengths are proportional to the values, and zero is where all of them begin."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from rich.console import Console

from underhood.core.figures import Plot, Series
from underhood.ui.terminal_charts import chart


def bars(*values: float, log: bool = False, paper: bool = False) -> list[tuple[int, int]]:
    """Start and length of each bar, in characters."""
    series = Series("s", tuple(range(len(values))), values, paper=paper)
    names = tuple("abcdefgh"[: len(values)])
    plot = Plot(title="t", x="", y="y", series=(series,), kind="bars", names=names, log_y=log)
    out = Console(file=io.StringIO(), width=80, markup=False)
    chart(out, plot)
    assert isinstance(out.file, io.StringIO)
    lines = [line for line in out.file.getvalue().splitlines() if line[:2] in {f"{name} " for name in names}]
    assert len(lines) == len(values)
    ink = "░" if paper else "█"
    return [(line.index(ink), line.count(ink)) if ink in line else (line.index("▏"), 0) for line in lines]


def test_signed_bars_begin_at_zero_and_the_largest_is_the_longest():
    (start_low, low), (start_high, high), (zero, none) = bars(-13.4, 6.7, 0.0)
    assert low == pytest.approx(2 * high, abs=1)
    assert start_low + low == start_high == zero
    assert none == 0


def test_lengths_are_proportional_for_one_sign():
    for sign in (1, -1):
        lengths = [length for _, length in bars(*(sign * value for value in (1.0, 2.0, 3.0)))]
        assert all(step == pytest.approx(lengths[0], abs=1) for step in (b - a for a, b in pairwise(lengths)))
    ends = {start + length for start, length in bars(-1.0, -2.0, -3.0)}
    assert len(ends) == 1


def test_logarithmic_bars_begin_at_the_left():
    lengths = bars(1.0, 10.0, 100.0, log=True)
    assert {start for start, length in lengths if length} == {2}
    assert lengths[2][1] > lengths[1][1] > lengths[0][1]


def test_paper_bars_have_another_ink():
    assert bars(-1.0, 1.0, paper=True)[1][1] > 0
