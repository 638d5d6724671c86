"""Pages of the path: prose, places of figures, the graph, and Markdown that is up to date."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import REPOSITORY
from underhood.core.figures import Frames, Grid, Heat, Plot, Series, Texts
from underhood.curriculum import results
from underhood.curriculum.index import milestones
from underhood.curriculum.pages import graph, prose
from underhood.curriculum.pages.drawing import APART, _ends, axis, draw, value_words
from underhood.curriculum.pages.markdown import markdown
from underhood.curriculum.pages.site import page
from underhood.curriculum.topics import topics


def test_prose_becomes_html_and_nothing_else_does():
    found = str(prose.html("A *strong* `word`, [a link](https://example.org/a) and <b>.\n\n- one\n- two\n\n$$x^2$$"))
    assert "<em>strong</em>" in found
    assert "<code>word</code>" in found
    assert '<a href="https://example.org/a">a link</a>' in found
    assert "&lt;b&gt;" in found
    assert found.count("<li>") == 2
    assert '<div class="equation"' in found
    assert "<msup>" in found


def test_tex_that_would_show_as_a_command_is_refused():
    with pytest.raises(ValueError, match="frobnicate"):
        prose.mathml(r"\frobnicate x")
    with pytest.raises(ValueError, match="not TeX"):
        prose.mathml(r"x^{")


@pytest.mark.parametrize("stem", list(milestones()))
def test_words_of_a_milestone_can_be_shown(stem):
    one = milestones()[stem]
    for text in (one.idea, one.hard, one.then, *one.errata, *(claim.statement for claim in one.claims)):
        for math in re.findall(r"<math.*?</math>", str(prose.html(text)), flags=re.DOTALL):
            ElementTree.fromstring(math)


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e4))
def test_log_axis_places_equal_factors_equally_far(low, factor):
    found = axis([low, low * factor**2], True, pad=0)
    assert found.at(low) == pytest.approx(0, abs=0.02)
    assert found.at(low * factor) == pytest.approx(50, abs=0.02)
    assert found.at(low * factor**2) == pytest.approx(100, abs=0.02)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_at_the_ends_never_cover_each_other(places):
    labels = _ends([{"end": place, "name": str(place), "hue": 0} for place in places])
    ordered = [label["at"] for label in labels]
    assert all(b - a >= APART - 0.1 for a, b in pairwise(ordered))
    assert [label["name"] for label in labels] == [str(place) for place in sorted(places)]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (8639, "8,639"), (0.2130, "0.213"), (1.5e-7, "1.5·10⁻⁷"), (1e6, "10⁶"), (-0.535, "−0.535"), (24, "24")],
)
def test_numbers_are_short(value, words):
    assert value_words(value) == words


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


def test_graph_has_every_row_at_a_place_of_its_own_and_eras_go_right():
    placed = graph.place()
    assert set(placed) == set(topics())
    assert len(set(placed.values())) == len(placed)
    for id, (x, _) in placed.items():
        assert x == placed[next(iter(topics()))][0] + graph.COLUMN * "ABCDEFGHIJKLMNO".index(topics()[id].section)


def test_no_page_asks_anything_of_the_network():
    places = results.places(None)
    for name in ("index", *milestones()):
        text = page(name, places)
        assert not re.search(r"""(?:src|href|url\()=?["']?https?://(?!.*rel=)""", _without_links(text)), name
        assert "Content-Security-Policy" in text


def _without_links(text: str) -> str:
    """The page without the links that a reader may follow."""
    return re.sub(r"<a [^>]*>", "", text)


@pytest.mark.parametrize("stem", list(milestones()))
def test_docs_page_is_up_to_date(stem):
    """If this fails: underhood path --docs docs/path"""
    file = REPOSITORY / "docs" / "path" / f"{stem}.md"
    assert file.exists(), "underhood path --docs docs/path writes it"
    assert file.read_text(encoding="utf-8") == markdown(milestones()[stem], [REPOSITORY / "results"])
