"""What every milestone must be: described by its folder, sound at smoke scale, and dependent on its idea.

One test per milestone runs it as ``underhood reproduce NAME --scale smoke`` does: what others say must be confirmed, no
claim may fail that is not published as a null result, and with each idea taken away its claims must fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from needs import REPOSITORY, shared_data
from underhood.core.figures import figure_from_json
from underhood.curriculum.excerpts import excerpt
from underhood.curriculum.index import find, milestones, path_folder
from underhood.curriculum.reproduce import failures, reproduce
from underhood.curriculum.topics import topics

STEMS = sorted(milestones())


def test_every_folder_of_the_path_is_a_milestone_or_lib():
    folders = {folder.name for folder in path_folder().iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert folders - {"lib"} == set(STEMS)
    assert len(STEMS) >= 31


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_folder_is_whole(stem: str):
    files = {file.name for file in (path_folder() / stem).iterdir() if file.is_file()}
    assert files == {"__init__.py", "milestone.toml", "idea.md", "run.py"}
    assert milestones()[stem].problems() == []


def test_reading_the_index_imports_no_code_of_a_milestone():
    program = (
        "import sys; from underhood.curriculum.index import milestones; milestones(); "
        "print([name for name in sys.modules if name in ('torch', 'numpy', 'scipy') or '.path.p' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_covers_topics_of_the_list_that_no_other_covers(stem: str):
    milestone = milestones()[stem]
    assert set(milestone.topics) <= set(topics())
    others = {topic for other in milestones().values() if other.stem != stem for topic in other.topics}
    assert not others & set(milestone.topics)


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_measures_every_claim_and_asks_for_every_ablation(stem: str):
    code = (path_folder() / stem / "run.py").read_text(encoding="utf-8")
    milestone = milestones()[stem]
    for key in (*(claim.key for claim in milestone.claims), *(ablation.key for ablation in milestone.ablations)):
        assert re.search(rf"""["']{key}["']""", code), f"run.py never says {key}"


@pytest.mark.parametrize("stem", STEMS)
def test_milestone_names_code_that_exists_and_is_cut_out_whole(stem: str):
    import ast

    for name in milestones()[stem].code:
        lines = excerpt(name).lines
        assert lines, name
        assert '"""' not in "\n".join(lines), name
        ast.parse("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_milestone_holds_at_smoke_scale_and_fails_without_its_idea(stem: str):
    milestone = find(stem)
    result = reproduce(milestone, "smoke", data=shared_data())
    assert failures(result) == []
    failed = {claim["key"] for claim in result["claims"] if claim["verdict"] == "does not hold here"}
    expected = {claim.key for claim in milestone.claims if claim.expected == "does not hold here"}
    assert failed <= expected, {claim["key"]: claim for claim in result["claims"] if claim["key"] in failed - expected}
    for claim in milestone.claims:
        (actual,) = [actual for actual in result["claims"] if actual["key"] == claim.key]
        if claim.deterministic and "values" in actual:
            assert len(set(actual["values"])) == 1, f"{claim.key} depends on the seed"
    written = json.loads(json.dumps(result))
    assert all(figure_from_json(figure) for figure in written["figures"])


def test_a_milestones_code_fits_on_a_few_screens():
    long = {stem: lines for stem in STEMS if (lines := _lines(stem)) > 160}
    assert not long, "move what others could use into the library, or what only milestones share into path/lib"


def test_every_result_in_the_repository_belongs_to_a_milestone():
    """Other commands' results are in the same folder; only milestones have names like ``p1913_markov``."""
    for location in (REPOSITORY / "results").glob("p[0-9][0-9][0-9][0-9]_*"):
        assert location.name in milestones(), location.name


def _lines(stem: str) -> int:
    return (path_folder() / stem / "run.py").read_text(encoding="utf-8").count("\n")
