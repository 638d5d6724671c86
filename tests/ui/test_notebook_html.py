"""HTML of notebooks: a table of shares as a heat map."""

from __future__ import annotations

import re

from underhood.ui.notebook import heat_table, signed_heat_table


def test_heat_table_has_one_cell_per_share_with_its_percent_and_leaves_zero_empty():
    html = str(heat_table(["a", "<b>"], ["x", "y"], [[1.0, 0.0], [0.254, 0.746]]))
    cells = re.findall(r'<td class="heat" style="--full:(\d+)%">(\d*)</td>', html)
    assert cells == [("100", "100"), ("0", ""), ("25", "25"), ("75", "75")]
    assert html.count("<tr>") == 3
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_signed_heat_table_fills_by_size_and_colours_by_sign():
    html = str(signed_heat_table(["a"], ["x", "y", "z"], [[-4.0, 1.0, float("nan")]], digits=1))
    cells = re.findall(r'<td class="([a-z ]+)" style="--full:(\d+)%">(.*?)</td>', html)
    assert cells == [("heat negative", "100", "-4.0"), ("heat", "25", "1.0"), ("heat", "0", "")]
