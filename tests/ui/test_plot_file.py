"""Plots as SVG files: well-formed, every point where its value is, and the colours of the path's pages."""

from __future__ import annotations

import re
from importlib.resources import files
from xml.etree import ElementTree

import pytest

from underhood.core.figures import Plot, Series
from underhood.ui.plot_file import HUE_COLOURS, plot_svg

PLOT = Plot(
    title="More < less & so on",
    x="KL",
    y="gold",
    series=(Series("up", (0.0, 1.0, 2.0), (0.0, 0.5, 1.0)), Series("down", (0.0, 2.0), (1.0, 0.0))),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_plot_file_is_well_formed_and_names_every_line():
    root = ElementTree.fromstring(plot_svg(PLOT))
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"More < less & so on", "KL", "gold", "up", "down"} <= set(words)
    assert len([*root.iter(f"{SVG}circle")]) == 5


def test_points_are_where_their_values_are():
    first = next(ElementTree.fromstring(plot_svg(PLOT)).iter(f"{SVG}g"))
    points = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in first.iter(f"{SVG}circle")]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_hues_are_those_of_the_pages():
    css = files("underhood.curriculum").joinpath("pages/path.css").read_text(encoding="utf-8")
    pages = re.findall(r"--hue-\d: light-dark\(([^,]+), ([^)]+)\);", css)
    assert [" ".join(pair) for pair in pages] == list(HUE_COLOURS)


def test_bars_are_not_drawn_as_files():
    with pytest.raises(ValueError, match="only plots of lines"):
        plot_svg(Plot(title="", x="", y="", kind="bars", series=PLOT.series))
