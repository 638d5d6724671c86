"""The commands `index` and `search`, and what they read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.retrieve.collect import collect_passages
from underhood.retrieve.index import PassageIndex


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / ".hidden").mkdir()
    (tmp_path / "notes" / "guide.md").write_text("# Guide\n\nWater the tomatoes daily.\n\n## Soil\n\nUse compost.\n")
    (tmp_path / "notes" / "deep" / "tool.py").write_text('def prune(plant):\n    """Cuts dead branches."""\n')
    (tmp_path / "notes" / "rows.jsonl").write_text('{"text": "Carrots like sand."}\n\n{"text": "Mint spreads."}\n')
    (tmp_path / "notes" / ".hidden" / "x.md").write_text("secret")
    (tmp_path / "notes" / "empty.md").write_text("")
    (tmp_path / "notes" / "picture.png").write_bytes(b"\x89PNG\0")
    return tmp_path


def run(*words: str) -> int:
    return main(list(words))


def test_folder_gives_passages_with_source_and_line(notes: Path):
    passages = collect_passages("notes")
    assert [(p.title, p.source, p.line) for p in passages] == [
        ("notes.deep.tool.prune", "notes/deep/tool.py", 1),
        ("Guide", "notes/guide.md", 3),
        ("Guide > Soil", "notes/guide.md", 7),
        ("", "notes/rows.jsonl", 1),
        ("", "notes/rows.jsonl", 3),
    ]
    elsewhere = collect_passages(str(notes / "notes"))
    assert [p.source for p in elsewhere] == [p.source for p in passages]
    assert [p.source for p in collect_passages("notes/guide.md", limit=1)] == ["notes/guide.md"] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("note", r"no such file or folder.*Did you mean notes"),
        ("notes/picture.png", "unsupported file type"),
        ("notes/.hidden/none", "no such file"),
        ("notes/empty.md", "is empty"),
    ],
)
def test_unreadable_data_is_told(notes: Path, data: str, message: str):
    with pytest.raises(UserError, match=message):
        collect_passages(data)


def test_pydocs_has_functions_and_topics():
    passages = collect_passages("pydocs")
    titles = {p.title for p in passages}
    assert len(passages) > 6_000
    assert {"os.path.join", "textwrap.dedent", "len"} <= titles
    assert any(p.source == "topic lambda" for p in passages)


def test_index_then_search_shows_marked_passages(notes: Path, capsys: pytest.CaptureFixture[str]):
    assert run("index", "notes", "--out", "n.index") == 0
    printed = capsys.readouterr().out
    assert "n.index: 5 passages of 3 documents" in printed
    assert "underhood search n.index" in printed
    assert run("search", "n.index", "how", "do", "I", "water", "tomatoes?") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1   Guide ")
    assert len(lines[0]) == 80
    assert lines[1].rstrip() == "    notes/guide.md:3, matched: water, tomatoes"
    assert lines[2].rstrip() == "    Water the tomatoes daily."


def test_search_as_json(notes: Path, capsys: pytest.CaptureFixture[str]):
    run("index", "notes", "--out", "n.index", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["passages"], facts["documents"], facts["bytes"]) == (5, 3, Path("n.index").stat().st_size)
    assert run("search", "n.index", "mint", "--json", "--k", "2") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [(hit["text"], hit["source"], hit["line"], hit["matched"]) for hit in hits] == [
        ("Mint spreads.", "notes/rows.jsonl", 3, ["mint"])
    ]
    assert run("search", "n.index", "zebra") == 0
    assert "No passage" in capsys.readouterr().out


def test_add_and_remove_change_the_file_as_if_it_were_made_anew(notes: Path, capsys: pytest.CaptureFixture[str]):
    run("index", "notes", "--out", "n.index")
    (notes / "more.md").write_text("# More\n\nBeans climb.\n")
    assert run("index", "more.md", "--out", "n.index", "--add") == 0
    (notes / "more.md").write_text("# More\n\nBeans climb high.\n")
    assert run("index", "more.md", "--out", "n.index", "--add") == 0
    assert "Replaced 1 passage" in capsys.readouterr().out
    assert run("index", "--out", "n.index", "--remove", "notes/deep", "notes/rows.jsonl") == 0
    index = PassageIndex.load(Path("n.index"))
    assert index.sources == ("notes/guide.md", "more.md")
    anew = PassageIndex.build(collect_passages("notes/guide.md") + collect_passages("more.md"))
    assert index.passages == anew.passages
    assert index.search("beans climb") == anew.search("beans climb")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "--out", "n.index"], "DATA or --remove missing"),
        (["index", "notes", "--out", "n.index"], "is there already"),
        (["index", "notes", "--out", "none/n.index"], "no folder"),
        (["index", "notes", "--out", "new.index", "--add"], "there is no index"),
        (["index", "--out", "n.index", "--remove", "notes/gide.md"], "Did you mean 'notes/guide.md'?"),
        (["index", "none", "--out", "n.index", "--restart"], "no such file"),
        (["index", "notes", "--out", "x.index", "--max-characters", "3"], "--max-characters takes 40"),
        (["search", "n.index"], "QUESTION missing"),
        (["search", "n.index", "a", "--k", "0"], "--k takes 1"),
        (["search", "notes/guide.md", "a"], "not an index"),
        (["search", "none.index", "a"], "there is no index"),
    ],
)
def test_mistake_is_one_line_and_changes_nothing(
    notes: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    run("index", "notes", "--out", "n.index")
    before, names = Path("n.index").read_bytes(), sorted(path.name for path in notes.iterdir())
    capsys.readouterr()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert Path("n.index").read_bytes() == before
    assert sorted(path.name for path in notes.iterdir()) == names
