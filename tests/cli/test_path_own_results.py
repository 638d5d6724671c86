"""What a user measures goes to a folder of their own, and is shown beside the published result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from needs import REPOSITORY
from underhood.cli.claims import fitted
from underhood.cli.main import main
from underhood.curriculum import index, results
from underhood.curriculum.pages.site import page
from underhood.ui.unicode_math import plain_prose

STEM = "p1913_markov"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder of the user, who works in an empty folder."""
    monkeypatch.setenv("UNDERHOOD_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def run(*words: str) -> int:
    return main(words)


def tracked() -> set[Path]:
    return set((REPOSITORY / "results" / STEM).iterdir())


def test_own_measurement_changes_no_published_result_and_not_the_current_folder(home: Path, capsys):
    before, published = tracked(), results.measurements(STEM, results.places(None)).main
    assert run("reproduce", STEM, "--scale", "smoke", "--seeds", "2") == 0
    assert tracked() == before
    assert list(Path.cwd().iterdir()) == []
    (file,) = (home / "results" / STEM).glob("*.json")
    measured = results.measurements(STEM, results.places(None))
    assert measured.main == published
    assert measured.beside is not None
    assert measured.beside[0] == file
    capsys.readouterr()

    assert run("path", "show", STEM) == 0
    shown = capsys.readouterr().out
    assert "yours" in shown
    assert f"Yours: {measured.beside[1]['created'][:10]}, smoke scale" in shown
    assert "Published: " in shown
    assert run("path") == 0
    assert "(yours: " in capsys.readouterr().out
    assert run("path", "show", STEM, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["own"]["scale"] == "smoke"
    assert told["result"]["scale"] == "report"

    text = page(STEM, results.places(None))
    assert text.count("<dt>yours</dt>") == len(index.find(STEM).claims)
    assert "<dt>published</dt>" in text
    alone = page(STEM, [REPOSITORY / "results"])
    assert "<dt>yours</dt>" not in alone
    assert "Published: measured" in alone


def test_record_writes_into_the_repository_only(home: Path, tmp_path: Path, monkeypatch, capsys):
    assert results.recorded() == REPOSITORY / "results"
    assert run("reproduce", STEM, "--record", "--results", str(tmp_path)) == 2
    assert "leave out --results" in capsys.readouterr().err
    installed = tmp_path / "site" / "underhood"
    (installed / "results").mkdir(parents=True)
    monkeypatch.setattr(results.underhood, "__file__", str(installed / "__init__.py"))
    assert run("reproduce", STEM, "--record") == 2
    assert "this is an installed package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["p1913_markov", "1913_markov", "1913-markov", "P1913-Markov", "markov-1913", "markov"]
)
def test_every_spelling_of_a_milestone_is_understood(name: str):
    assert index.find(name).stem == STEM


@pytest.mark.parametrize("stem", list(index.milestones()))
def test_terminal_view_fits_80_columns_and_has_one_line_per_claim(home: Path, stem: str, capsys):
    assert run("path", "show", stem) == 0
    shown = capsys.readouterr().out.splitlines()
    body = shown[: next(at for at, line in enumerate(shown) if line.startswith("Published: "))]
    assert max(map(len, shown)) <= 80
    assert not any("$" in line or "\\" in line for line in shown)
    milestone = index.find(stem)
    start = next(at for at, line in enumerate(shown) if line.startswith("  claim "))
    rows = shown[start + 1 : start + 1 + len(milestone.claims)]
    assert [row.removeprefix("* ").split()[0] for row in rows] == [claim.key for claim in milestone.claims]
    text = " ".join(" ".join(body).split())
    for claim in milestone.claims:
        assert " ".join(plain_prose(claim.statement).split()) in text


def test_map_names_each_milestone_by_its_stem_and_no_topic_of_one(home: Path, capsys):
    assert run("path") == 0
    shown = capsys.readouterr().out
    for stem, milestone in index.milestones().items():
        assert f" {stem} " in shown
        assert not any(f" {id} " in shown for id in milestone.topics if "-" in id)  # others are words of titles


def test_narrow_rows_keep_their_verdicts():
    rows = [("* a_claim_with_a_long_name", "1,425 v", "0.802 (0.765 to 0.840)", "does not hold here")]
    (line,) = fitted(rows, 60)
    assert len(line) <= 60
    assert line.endswith("does not hold here")
    assert fitted(rows, 100)[0] == "* a_claim_with_a_long_name  1,425 v  0.802 (0.765 to 0.840)  does not hold here"
