"""Charts: axes, labels at the ends of lines, and every kind of figure."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from underhood.core.figures import Frames, Grid, Heat, Plot, Series, Texts
from underhood.ui.axes import axis
from underhood.ui.svg_figures import LABEL_GAP, LABEL_LINE, LABEL_WIDTH, _ends, draw


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e4))
def test_log_axis_places_equal_factors_equally_far(low, factor):
    actual = axis([low, low * factor**2], True, pad=0)
    assert actual.at(low) == pytest.approx(0, abs=0.02)
    assert actual.at(low * factor) == pytest.approx(50, abs=0.02)
    assert actual.at(low * factor**2) == pytest.approx(100, abs=0.02)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 3)), min_size=1, max_size=6))
def test_labels_at_the_ends_are_the_nearest_that_do_not_cover_each_other_matches_isotonic_regression(given_ends):
    ends = sorted(given_ends, key=lambda end: end[0])
    names = [" ".join(["m" * (LABEL_WIDTH - 2)] * lines) for _, lines in ends]
    labels = _ends([{"end": at, "name": name, "hue": 0} for (at, _), name in zip(ends, names, strict=True)])
    assert [label["name"] for label in labels] == names
    heights = [LABEL_GAP + LABEL_LINE * lines for _, lines in ends]
    offsets = list(accumulate(((a + b) / 2 for a, b in pairwise(heights)), initial=0.0))
    free = isotonic_regression([at - offset for (at, _), offset in zip(ends, offsets, strict=True)]).x
    top, bottom = heights[0] / 2, 100 - heights[-1] / 2 - offsets[-1]
    wanted = [max(top, min(at, bottom)) + offset for at, offset in zip(free, offsets, strict=True)]
    assert [label["at"] for label in labels] == pytest.approx(wanted, abs=0.02)


def test_label_of_a_level_at_the_upper_edge_is_below_it():
    levels = ((10.0, "the highest"), (5.0, "in the middle"))
    plot = Plot(title="l", x="n", y="bits", series=(Series("s", (1, 2), (0.0, 9.0)),), levels=levels)
    assert [level["below"] for level in draw(plot)["levels"]] == [True, False]


def test_every_kind_of_figure_is_drawn_with_its_values():
    bars = Plot(title="b", x="", y="bits", kind="bars", names=("one", "two"), series=(Series("s", (0, 1), (1.5, 3.0)),))
    line = Plot(title="l", x="n", y="bits", series=(Series("s", (1, 2), (3.0, 4.0), (2.5, 3.5), (3.5, 4.5)),))
    assert [bar["width"] for row in draw(bars)["rows"] for bar in row["bars"]][1] > 90
    assert draw(line)["read"]["series"][0]["words"] == ["3 (2.50 to 3.50)", "4 (3.50 to 4.50)"]
    assert len(draw(Frames(title="f", control="k", frames=(("1", line), ("2", line))))["frames"]) == 2
    heat = draw(Heat(title="h", values=((1.0, -2.0),), rows=("r",), columns=("a", "b"), signed=True))
    assert [cell["share"] for cell in heat["rows"][0][1]] == [0.5, 1.0]
    assert draw(Grid(title="g", head=("a",), rows=((1.25,),)))["rows"] == [["1.25"]]
    assert draw(Texts(title="t", texts=(("a", "b"),)))["texts"] == (("a", "b"),)
