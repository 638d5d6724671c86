"""The passage index: what comes first, changes equal rebuilding, files whole or not at all, damage is told."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.core.errors import UserError
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.passages import Passage


def passage(title: str, text: str, source: str = "a.md", **more) -> Passage:
    return Passage(title=title, text=text, source=source, **more)


LIBRARY = [
    passage("os.path.join", "Join two or more pathname components.", "os.path"),
    passage("str.join", "Concatenate any number of strings.", "str"),
    passage("os.path", "os.path.join joins, os.path.join joins, os.path.join joins paths.", "os.path"),
    passage("textwrap.dedent", "Remove any common leading whitespace from every line.", "textwrap"),
    passage("Path", "A path of a file.", "pathlib"),
    passage("path", "A function with a lower-case name.", "other"),
    passage("any", "Return True if bool(x) is True for any x in the iterable.", "builtins"),
    passage("Install > Linux", "Run the installer.", "guide.md", search_text="apt and dnf packages"),
]


@pytest.fixture(scope="module")
def library() -> PassageIndex:
    return PassageIndex.build(LIBRARY, data=["library"])


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What does os.path.join do?", "os.path.join"),
        ("What does `os.path.join` do?", "os.path.join"),
        ("os.path.join()", "os.path.join"),
        ("which parameters does os.path.join take", "os.path.join"),
        ("what does dedent do", "textwrap.dedent"),
        ("what does path.join do", "os.path.join"),
        ("what is Path for", "Path"),
        ("what does path do", "path"),
        ("what does any do", "any"),
        ("how do I join path components", "os.path.join"),
        ("remove the whitespace before my lines", "textwrap.dedent"),
        ("install on linux", "Install > Linux"),
        ("apt packages?", "Install > Linux"),
    ],
)
def test_best_passage_of_a_question(library: PassageIndex, question: str, title: str):
    assert library.search(question)[0].passage.title == title


@pytest.mark.parametrize("question", ["hello", "thanks!", "", "   ", "who are you?", "?", "zzzz qqqq"])
def test_question_that_matches_nothing_has_no_hits(library: PassageIndex, question: str):
    assert library.search(question) == []


def test_hit_tells_what_was_matched_as_typed_and_how_much(library: PassageIndex):
    hit = library.search("Joining pathname xylophones")[0]
    assert hit.passage.title == "os.path.join"
    assert hit.matched == ("Joining", "pathname")
    assert 0.2 < hit.coverage < 0.8
    assert library.search("join pathname components")[0].coverage == pytest.approx(1)
    assert len(library.search("path", k=2)) == 2
    assert library.search("path", k=0) == []


def test_weight_scales_the_score_of_text_matches():
    index = PassageIndex.build([passage("a", "red fish"), passage("b", "red fish", weight=1.25)])
    first, second = index.search("red fish")
    assert (first.passage.title, second.passage.title) == ("b", "a")
    assert first.score == pytest.approx(1.25 * second.score)


def test_hits_are_sorted_and_ties_keep_the_order_of_the_documents():
    index = PassageIndex.build([passage(f"t{number}", "same words") for number in range(50)])
    hits = index.search("same words", k=7)
    assert [hit.passage.title for hit in hits] == [f"t{number}" for number in range(7)]


texts = st.lists(st.sampled_from(["join", "path", "os.path", "file", "naïve", "東京都", "copy"]), max_size=5).map(
    " ".join
)
passages_strategy = st.lists(st.builds(passage, texts, texts, st.sampled_from(["a", "b", "c"])), max_size=8)


@settings(max_examples=60)
@given(passages_strategy, passages_strategy, st.sampled_from(["a", "b", "c", "none"]))
def test_adding_and_removing_equals_rebuilding(first: list[Passage], second: list[Passage], source: str):
    index = PassageIndex.build(first)
    index.add(second)
    removed = index.remove(source)
    kept = [p for p in first + second if p.source != source]
    rebuilt = PassageIndex.build(kept)
    assert removed == len(first) + len(second) - len(kept)
    assert index.passages == tuple(kept)
    for question in ("join path", "os.path file", "what does os.path do", "naive copies", "東京"):
        assert index.search(question, k=5) == rebuilt.search(question, k=5)


def test_saved_index_is_the_same_after_loading(library: PassageIndex, tmp_path: Path):
    odd = [*LIBRARY, passage("Größe \ud83d\ude00", "naïve\n\ttext 東京\u2028x \udc80", "ü#1", line=7, weight=0.5)]
    index = PassageIndex.build(odd, data=["a", "b"])
    index.save(tmp_path / "notes.index")
    again = PassageIndex.load(tmp_path / "notes.index")
    assert (again.passages, again.facts) == (index.passages, index.facts)
    for question in ("join components", "Größe", "what does dedent do"):
        assert again.search(question) == index.search(question)
    again.add([passage("new", "brand new text")])
    index.add([passage("new", "brand new text")])
    assert again.search("brand new") == index.search("brand new")
    empty = PassageIndex.build(())
    empty.save(tmp_path / "empty.index")
    assert PassageIndex.load(tmp_path / "empty.index").search("join") == []


def test_terms_of_another_version_are_analysed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "notes.index"
    monkeypatch.setattr("underhood.retrieve.index_file.TERMS_VERSION", 0)
    monkeypatch.setattr("underhood.retrieve.index.terms", str.split)
    PassageIndex.build(LIBRARY).save(path)
    monkeypatch.undo()
    assert PassageIndex.load(path).search("components")[0].passage.title == "os.path.join"


def test_every_flipped_byte_is_noticed_or_harmless(library: PassageIndex, tmp_path: Path):
    path = tmp_path / "notes.index"
    library.save(path)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            loaded = PassageIndex.load(path)
        except UserError:
            refused += 1
        else:
            assert loaded.passages == library.passages
    assert refused > len(whole) / 7 / 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_cut_off_file_is_refused(library: PassageIndex, tmp_path: Path, share: float):
    path = tmp_path / "notes.index"
    library.save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="not an index"):
        PassageIndex.load(path)


def rewritten(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content |= {name.replace("__", "."): data for name, data in members.items()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in content.items():
            if data:
                file.writestr(name, data)
    path.write_bytes(archive.getvalue())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"index__json": b'{"format": "other"}'}, "not an index"),
        ({"index__json": b'{"format": "underhood passages", "version": 99}'}, "later version"),
        ({"index__json": b"[]"}, "not an index"),
        ({"index__json": b"{"}, "damaged"),
        ({"passages__jsonl": b'{"title": "x"}\n'}, "damaged"),
        ({"passages__jsonl": b""}, "damaged"),
        ({"vocabulary__txt": b"one\n"}, "damaged"),
        ({"terms__npy": b"not an array"}, "damaged"),
        ({"starts__npy": b""}, "damaged"),
    ],
)
def test_wrong_content_is_told(library: PassageIndex, tmp_path: Path, members: dict[str, bytes], message: str):
    path = tmp_path / "notes.index"
    library.save(path)
    rewritten(path, **members)
    with pytest.raises(UserError, match=message):
        PassageIndex.load(path)


def test_missing_file_says_how_to_make_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no index .*underhood index DATA --out"):
        PassageIndex.load(tmp_path / "notes.index")
    with pytest.raises(UserError, match="can't read"):
        PassageIndex.load(tmp_path)


def test_pickled_array_is_never_unpickled(library: PassageIndex, tmp_path: Path):
    import numpy as np

    path = tmp_path / "notes.index"
    library.save(path)
    array = io.BytesIO()
    np.save(array, np.asarray([{"a": 1}], dtype=object), allow_pickle=True)
    rewritten(path, terms__npy=array.getvalue())
    with pytest.raises(UserError, match="damaged"):
        PassageIndex.load(path)


def test_interrupted_writing_leaves_the_old_file_and_nothing_else(
    library: PassageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "notes.index"
    library.save(path)
    before = path.read_bytes()
    larger = PassageIndex.build([*LIBRARY, passage("new", "text")])

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        larger.save(path)
    with pytest.raises(KeyboardInterrupt):
        larger.save(tmp_path / "other.index")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.index"]
    assert path.read_bytes() == before


def test_file_is_plain_json_and_arrays(library: PassageIndex, tmp_path: Path):
    path = tmp_path / "notes.index"
    library.save(path)
    with zipfile.ZipFile(path) as file:
        head = json.loads(file.read("index.json"))
        assert (head["passages"], head["facts"]["data"]) == (len(LIBRARY), ["library"])
        assert json.loads(file.read("passages.jsonl").splitlines()[0])["title"] == "os.path.join"


@pytest.mark.parametrize("behind", [b"x", b"PK", bytes(70_000)], ids=["byte", "letters", "zeros"])
def test_bytes_behind_an_index_are_named(tmp_path: Path, library: PassageIndex, behind: bytes):
    library.save(tmp_path / "a.index")
    content = (tmp_path / "a.index").read_bytes()
    (tmp_path / "a.index").write_bytes(content + behind)
    with pytest.raises(UserError, match=r"damaged|not an index"):
        PassageIndex.load(tmp_path / "a.index")


def test_joined_indexes_are_refused_not_read_by_half(tmp_path: Path, library: PassageIndex):
    library.save(tmp_path / "a.index")
    PassageIndex.build(LIBRARY[:2]).save(tmp_path / "b.index")
    both = (tmp_path / "a.index").read_bytes() + (tmp_path / "b.index").read_bytes()
    (tmp_path / "both.index").write_bytes(both)
    with pytest.raises(UserError, match=r"bytes precede it.*--add adds to one"):
        PassageIndex.load(tmp_path / "both.index")


def test_heading_that_is_the_question_comes_first():
    texts = {
        "FAQ > How large may a file be?": "Up to 2 terabytes.",
        "Settings > size": "Size of a file, a large file or files.",
    }
    index = PassageIndex.build([Passage(title=title, text=text, source="a") for title, text in texts.items()])
    for question in ("How large may a file be?", "how large may a file be"):
        assert index.search(question)[0].passage.text == "Up to 2 terabytes."
