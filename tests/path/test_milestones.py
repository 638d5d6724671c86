"""What every milestone must be: described by data, sound at smoke scale, and dependent on its idea.

One test per milestone runs it as ``underhood reproduce NAME --scale smoke`` does: every oracle must agree, no claim may
fail, and with each idea taken away its claims must.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from needs import REPOSITORY, shared_data
from underhood.core.figures import figure_from_json
from underhood.curriculum.index import find, folder, milestones, read
from underhood.curriculum.reproduce import failures, reproduce
from underhood.curriculum.topics import topics

STEMS = sorted(file.stem for file in folder().glob("p[0-9]*.py"))


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_is_read_without_running_its_file(stem: str):
    milestone = read(folder() / f"{stem}.py")
    assert milestone == importlib.import_module(f"underhood.path.{stem}").MILESTONE
    assert milestone.problems() == []


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_covers_topics_of_the_list_that_no_other_covers(stem: str):
    milestone = milestones()[stem]
    assert set(milestone.topics) <= set(topics())
    others = {topic for other in milestones().values() if other.stem != stem for topic in other.topics}
    assert not others & set(milestone.topics)


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_names_library_code_that_exists(stem: str):
    from underhood.curriculum.excerpts import excerpt

    for name in milestones()[stem].code:
        assert excerpt(name).lines, name


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_holds_at_smoke_scale_and_fails_without_its_idea(stem: str):
    milestone = find(stem)
    result = reproduce(milestone, "smoke", data=shared_data())
    assert failures(result) == []
    failed = [claim["key"] for claim in result["claims"] if claim["verdict"] == "does not hold here"]
    expected = importlib.import_module(f"underhood.path.{stem}").__dict__.get("NULLS", ())
    assert set(failed) == set(expected), {key: c for c in result["claims"] if (key := c["key"]) in failed}
    written = json.loads(json.dumps(result))
    assert all(figure_from_json(figure) for figure in written["figures"])


def test_a_milestone_fits_on_a_few_screens():
    long = {stem: lines for stem in STEMS if (lines := _lines(folder() / f"{stem}.py")) > 260}
    assert not long, "move what others could use into the library"


def test_every_result_in_the_repository_belongs_to_a_milestone():
    """Other commands' results lie beside them; only milestones have names like ``p1913_markov``."""
    for place in (REPOSITORY / "results").glob("p[0-9][0-9][0-9][0-9]_*"):
        assert place.name in milestones(), place.name


def _lines(file: Path) -> int:
    return file.read_text(encoding="utf-8").count("\n")
