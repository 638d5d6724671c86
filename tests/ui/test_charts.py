"""Charts: axes, labels at the ends of lines, and every kind of figure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.figures import Frames, Grid, Heat, Plot, Series, Texts
from underhood.ui.axes import axis
from underhood.ui.svg_figures import APART, _ends, draw


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e4))
def test_log_axis_places_equal_factors_equally_far(low, factor):
    actual = axis([low, low * factor**2], True, pad=0)
    assert actual.at(low) == pytest.approx(0, abs=0.02)
    assert actual.at(low * factor) == pytest.approx(50, abs=0.02)
    assert actual.at(low * factor**2) == pytest.approx(100, abs=0.02)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_at_the_ends_never_cover_each_other(places):
    labels = _ends([{"end": location, "name": str(location), "hue": 0} for location in places])
    ordered = [label["at"] for label in labels]
    assert all(b - a >= APART - 0.1 for a, b in pairwise(ordered))
    assert [label["name"] for label in labels] == [str(location) for location in sorted(places)]


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
