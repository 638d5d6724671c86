"""Pages of the path: prose, places of figures, the graph, and Markdown that is up to date."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from needs import REPOSITORY
from underhood.curriculum import results
from underhood.curriculum.index import covering, milestones
from underhood.curriculum.pages import graph, prose
from underhood.curriculum.pages.markdown import markdown
from underhood.curriculum.pages.site import page
from underhood.curriculum.topics import TIERS, topics


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


@pytest.mark.parametrize("tier", list(TIERS))
def test_view_of_the_map_holds_whatever_its_topics_need_and_eras_go_right(tier: int):
    members = graph.view(tier)
    assert members >= {topic.id for topic in topics().values() if topic.tier <= tier}
    for id in members:
        assert set(topics()[id].needs) <= members, id
    placed = graph.place(members)
    assert set(placed) == members
    eras = [era for era in "ABCDEFGHIJKLMNO" if any(topics()[id].section == era for id in members)]
    for id, (x, _) in placed.items():
        assert x == graph.EDGE + graph.COLUMN * eras.index(topics()[id].section)
    columns: dict[float, list[tuple[float, int]]] = {}
    for id, (x, y) in placed.items():
        columns.setdefault(x, []).append((y, graph.height(topics()[id])))
    for nodes in columns.values():
        for (y, tall), (below, _) in pairwise(sorted(nodes)):
            assert y + tall < below


def test_views_grow_up_to_everything():
    assert graph.view(1) < graph.view(2) < graph.view(3) == set(topics())


def test_start_needs_nothing_and_is_written():
    first = graph.first_stop()
    assert (first.needs, first.tier) == ((), 1)
    assert first.id in covering()


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
