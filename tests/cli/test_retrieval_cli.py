"""``underhood chat`` and ``underhood generate`` with documents, as a user meets them."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_talk_cli import Terminal
from tiny_run import make_run

import underhood
from underhood.cli.main import main
from underhood.cli.source_lines import corpus_line, source_line
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.retrieve.passages import Passage
from underhood.retrieve.retriever import Retriever
from underhood.retrieve.template import INSTRUCTED

JOIN = Passage(title="os.path.join", text="Join pathname components. Returns a path.", source="module os.path", line=12)
DEDENT = Passage(title="textwrap.dedent", text="Remove leading whitespace.", source="module textwrap", line=3)
INDEX = PassageIndex.build([JOIN, DEDENT], data=["pydocs"])
QUESTION = "What does os.path.join do?"
QUOTES = {
    "`os.path.join`: Join pathname components. [1]",
    "`os.path.join`: Returns a path. [1]",
    "`os.path.join`: Join pathname components. Returns a path. [1]",
    "That is not in the documents.",
}
Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an index whose model was trained for it."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "taught", ("base", "sft"), context=400, retrieval="taught")
    INDEX.save(folder / RUN_INDEX)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an index."""
    return make_run(tmp_path_factory.mktemp("runs") / "plain", ("base", "sft"), context=800)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("indexes") / "notes.index"
    INDEX.save(path)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def call(verb: str, run: Path, *words: str | Path, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        code = main([verb, str(run), *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_chat_answers_from_the_runs_own_index(cli: Callable[..., Result], taught: Path) -> None:
    code, out, err = cli("chat", taught, stdin=f"{QUESTION}\nand its return value?\n")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert set(out.splitlines()) <= QUOTES
    assert cli("chat", taught, stdin=f"{QUESTION}\nand its return value?\n")[1] == out  # greedy: no seed is needed
    # The ablations: without the index, and without holding the answer to it.
    for words in (("--no-retrieve",), ("--no-quote",)):
        code, free, err = cli("chat", taught, *words, "--max-tokens", "20", "--seed", "1", stdin=f"{QUESTION}\n")
        assert (code, err) == (0, "")
        assert free.rstrip("\n") not in QUOTES


def test_answers_from_documents_are_drawn_if_a_temperature_is_given(cli: Callable[..., Result], taught: Path) -> None:
    drawn = {cli("chat", taught, "--temperature", "3", "--seed", str(n), stdin=f"{QUESTION}\n")[1] for n in range(8)}
    assert len(drawn) > 1
    assert {line for text in drawn for line in text.splitlines()} <= QUOTES


def test_any_chat_model_answers_from_an_index_that_is_named(
    cli: Callable[..., Result], plain: Path, taught: Path, index: Path
) -> None:
    words = ("--max-tokens", "12", "--temperature", "0")
    loaded = underhood.load(plain)
    retriever = Retriever(INDEX, INSTRUCTED)
    from underhood.infer.sample import SamplingSpec

    talk = loaded.conversation(prepare=retriever.prepare)
    expected = "".join(talk.reply(QUESTION, max_new_tokens=12, sampling=SamplingSpec(temperature=0)))
    for path in (index, taught):
        assert cli("chat", plain, "--retrieve", path, *words, stdin=f"{QUESTION}\n") == (0, expected + "\n", "")
    assert cli("chat", plain, *words, stdin=f"{QUESTION}\n")[1] != expected + "\n"
    code, out, _ = cli("chat", plain, "--retrieve", index, "--quote", stdin=f"{QUESTION}\n")
    assert code == 0
    assert out.rstrip("\n") in QUOTES


def test_commands_show_the_sources_and_change_them(
    cli: Callable[..., Result], taught: Path, index: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.index"
    PassageIndex.build([Passage(title="", text="Lists hold items.", source="a.txt")]).save(other)
    lines = [
        "/sources",
        QUESTION,
        "/sources",
        "/retrieve",
        "/retrieve off",
        "hello",
        "/sources",
        "/retrieve on",
        f"/retrieve {other}",
        "Lists?",
        "/sources",
        "/stage base",
        "/sources",
        "/stage sft",
        "/retrieve",
    ]
    code, out, err = cli("chat", taught, stdin="\n".join(lines))
    assert code == 0
    assert "The last answer came from no document." in out
    shown = re.sub(r" +$", "", out, flags=re.MULTILINE)
    title = r"^1   os\.path\.join +\d+\.\d\d$"
    assert re.search(title + r"\n    module os\.path:12, matched: os\.path\.join\n    Join path", shown, re.MULTILINE)
    assert "Answers come from no documents; /retrieve FILE names an index." in out
    assert "    a.txt:1, matched: Lists\n    Lists hold items.\n" in shown
    assert [line for line in err.splitlines() if line.startswith("Answers")] == [
        "Answers come from 2 passages of pydocs.",
        "Answers come from no documents.",
        "Answers come from 2 passages of pydocs.",
        "Answers come from 1 passage of a.txt.",
        "Answers come from 1 passage of a.txt.",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--retrieve", "{index}", "--no-retrieve"), "error: an answer comes from documents or it does not"),
        (("--retrieve", "{run}"), "has no passages.index"),
        (("--retrieve", "nobody.index"), "nobody.index"),
        (("--quote",), "error: there is nothing to quote. Name the documents: --retrieve notes.index"),
        (("--quote", "--stage", "base"), "error: there is nothing to quote"),
        (("--retrieve", "{index}", "--stage", "base"), "the base model has not learnt to chat"),
    ],
)
@pytest.mark.parametrize("verb", ["chat", "generate"])
def test_mistakes_cost_one_line_and_code_2(
    cli: Callable[..., Result], plain: Path, index: Path, verb: str, words: tuple[str, ...], message: str
) -> None:
    given = [word.format(index=index, run=plain) for word in words]
    code, out, err = cli(verb, plain, *(["x"] if verb == "generate" else []), *given, stdin="Hello\n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_generate_answers_a_question_from_documents(cli: Callable[..., Result], taught: Path, index: Path) -> None:
    code, out, err = cli("generate", taught, QUESTION, "--retrieve", index)
    assert (code, err) == (0, "")
    assert out.rstrip("\n") in QUOTES
    assert cli("generate", taught, QUESTION, "--quote")[1] == out  # the run's own
    assert cli("generate", taught, QUESTION, "--retrieve", index, "--stream")[1] == out
    assert cli("generate", taught, "--retrieve", index, stdin=QUESTION + "\n")[1] == out
    continued = underhood.load(taught).generate(QUESTION, max_tokens=8, seed=1)
    assert cli("generate", taught, QUESTION, "--max-tokens", "8", "--seed", "1")[1] == continued + "\n"


def test_generate_as_json_names_passages_and_citations(cli: Callable[..., Result], taught: Path) -> None:
    words = (QUESTION, "--retrieve", taught, "--json", "--n", "6", "--temperature", "3", "--seed", "1")
    code, out, _ = cli("generate", taught, *words)
    report = json.loads(out)
    assert code == 0
    texts = [completion["text"] for completion in report["completions"]]
    assert set(texts) <= QUOTES
    assert len(set(texts)) > 1
    assert report["citations"] == [[1] if text.endswith("[1]") else [] for text in texts]
    (passage,) = report["retrieved"]
    assert passage.pop("score") > 0
    assert 0 < passage.pop("coverage") <= 1
    facts = {"number": 1, "title": "os.path.join", "text": JOIN.text, "source": "module os.path", "line": 12}
    assert passage == facts | {"matched": ["os.path.join"]}


def test_generate_keeps_a_form_of_its_own(cli: Callable[..., Result], taught: Path) -> None:
    _, out, _ = cli("generate", taught, QUESTION, "--retrieve", taught, "--regex", "yes|no")
    assert out in ("yes\n", "no\n")
    code, _, err = cli("generate", taught, QUESTION, "--retrieve", taught, "--regex", "yes|no", "--quote")
    assert code == 2
    assert "an answer keeps to one form" in err


def test_source_lines_are_plain_text_in_one_line() -> None:
    assert source_line(2, JOIN) == "[2] os.path.join · module os.path, line 12"
    strange = Passage(title="a\x1b[2Jb\nc", text="t", source="x\x07.md")
    assert source_line(1, strange) == "[1] a␛[2Jb c · x␇.md"
    assert corpus_line(INDEX) == "2 passages of pydocs"
    many = PassageIndex.build([Passage(title="", text="Words.", source=f"{n}.md") for n in range(1234)])
    assert corpus_line(many) == "1,234 passages of 1,234 documents"


def test_chat_in_a_terminal_says_what_answers_come_from_and_names_the_sources(taught: Path) -> None:
    terminal = Terminal("chat", str(taught), "--max-tokens", "200")
    try:
        terminal.wait_for("\n> ")
        assert "Answers come from 2 passages of pydocs." in terminal.shown
        assert "/sources shows the passages" in terminal.shown
        at = terminal.type(QUESTION + "\n")
        terminal.wait_for("\n> ", at)
        shown = terminal.shown[at:].replace("\r", "")
        answer = next(line for line in shown.splitlines()[1:] if line)
        assert answer in QUOTES
        cited = "[1] os.path.join · module os.path, line 12" in shown
        assert cited == answer.endswith("[1]")
        printed = terminal.shown.replace("\r", "").replace(str(taught), "runs/taught")
        assert max(map(len, printed.splitlines())) <= 80
        terminal.type("\x04")
        assert terminal.close() == 0
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
