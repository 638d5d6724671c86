"""Pages of the path: prose, places of figures, the graph, and Markdown that is up to date."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from needs import REPOSITORY
from underhood.curriculum import results
from underhood.curriculum.index import milestones
from underhood.curriculum.pages import graph, prose
from underhood.curriculum.pages.markdown import markdown
from underhood.curriculum.pages.site import page
from underhood.curriculum.topics import topics


def test_prose_becomes_html_and_nothing_else_does():
    actual = str(prose.html("A *strong* `word`, [a link](https://example.org/a) and <b>.\n\n- one\n- two\n\n$$x^2$$"))
    assert "<em>strong</em>" in actual
    assert "<code>word</code>" in actual
    assert '<a href="https://example.org/a">a link</a>' in actual
    assert "&lt;b&gt;" in actual
    assert actual.count("<li>") == 2
    assert '<div class="equation"' in actual
    assert "<msup>" in actual


def test_tex_that_would_show_as_a_command_is_refused():
    with pytest.raises(ValueError, match="frobnicate"):
        prose.mathml(r"\frobnicate x")
    with pytest.raises(ValueError, match="not TeX"):
        prose.mathml(r"x^{")


@pytest.mark.parametrize("stem", list(milestones()))
def test_words_of_a_milestone_can_be_shown(stem):
    milestone = milestones()[stem]
    for text in (
        milestone.idea,
        milestone.hard,
        milestone.then,
        *milestone.errata,
        *(claim.statement for claim in milestone.claims),
    ):
        for math in re.findall(r"<math.*?</math>", str(prose.html(text)), flags=re.DOTALL):
            ElementTree.fromstring(math)


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
