"""Text analysis: identifiers, scripts, questions."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.retrieve.questions import parse_question
from underhood.retrieve.terms import TERMS_VERSION, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("os.path.join", ["os.path.join", "os", "path", "join"]),
        ("OrderedDict", ["ordereddict", "order", "dict"]),
        ("get_close_matches", ["get_close_matches", "get", "close", "match"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("listdir splitlines", ["listdir", "list", "dir", "splitlin", "split", "line"]),
        ("sha256", ["sha256", "sha", "256"]),
        ("It ends. Next", ["it", "end", "next"]),
        ("Café, naïve; cafe", ["cafe", "naiv", "cafe"]),
        ("the file's size", ["the", "file", "size"]),
        ("東京都庁", ["東京", "京都", "都庁"]),
        ("字", ["字"]),
        ("Größe STRASSE straße", ["gross", "strass", "strass"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("path", ["path"]),
        ("—…!", []),
    ],
)
def test_terms_of_text(text: str, expected: list[str]):
    assert terms(text) == expected


@given(st.text())
def test_terms_are_a_function_of_case_folded_composed_text_and_never_empty(text: str):
    result = terms(text)
    assert all(result)
    assert result == terms(text)


def test_changed_terms_raise_the_version():
    """Whoever changes what `terms` gives raises TERMS_VERSION, or saved indexes would be searched with other terms."""
    text = "Copies of OrderedDict.move_to_end, os.path.join() and b64encode; naïve Größe 東京都 हिन्दी don't 3.14 v2"
    digest = hashlib.sha256("\n".join(terms(text)).encode()).hexdigest()[:12]
    assert (TERMS_VERSION, digest) == (1, "247816e7b331")


@pytest.mark.parametrize(
    ("question", "identifiers"),
    [
        ("What does `os.path.join` do?", ("os.path.join",)),
        ("what does dedent do", ("dedent",)),
        ("print()", ("print",)),
        ("print", ("print",)),
        ("which parameters does open take", ("open",)),
        ("parameters of textwrap.wrap and glob.glob", ("textwrap.wrap", "glob.glob")),
        ("what is OrderedDict for?", ("OrderedDict",)),
        ("how do I join two paths", ()),
        ("sort a list without changing it", ()),
        ("hello", ()),
        ("what do you do", ()),
    ],
)
def test_identifiers_of_a_question(question: str, identifiers: tuple[str, ...]):
    assert parse_question(question).identifiers == identifiers


@pytest.mark.parametrize("question", ["hello", "Hi there!", "thanks", "who are you?", "what can you do", "", "?!"])
def test_greetings_have_no_terms(question: str):
    assert parse_question(question).terms == ()


def test_stop_words_that_are_names_are_kept():
    assert [term.term for term in parse_question("what does `any` do").terms] == ["ani"]
    assert [term.term for term in parse_question("what does all do").terms] == ["all"]
    assert parse_question("is any of it all right").terms != ()
    assert [term.typed for term in parse_question("How do I join two Paths?").terms] == ["join", "two", "Paths"]
