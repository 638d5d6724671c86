"""``underhood serve`` with documents: what it says at its start, and the options that can't be met."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from documents_server import NOTE, PASSAGES
from tiny_run import make_run

import underhood
from underhood.cli.main import main
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.web.documents import RetrievalSettings, open_documents

JOIN, KETTLE = "What does os.path.join do?", "Where is the kettle?"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs") / "taught", ("base", "sft"), context=400, retrieval="taught")
    PassageIndex.build(PASSAGES, data=["pydocs"]).save(run / RUN_INDEX)
    return run


@pytest.fixture(scope="module")
def notes(taught: Path) -> Path:
    index = taught.parent / "notes.index"
    PassageIndex.build([NOTE], data=["notes"]).save(index)
    return index


def served(words: Sequence[str], model: str, question: str = JOIN) -> tuple[str, list[str] | None]:
    """What the command prints until it answers, and the sources that an answer is written from."""
    command = [sys.executable, "-m", "underhood", "serve", *words, "--port", "0"]
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 2}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    try:
        printed = ""
        while "Page: http" not in printed:
            line = server.stdout.readline()
            assert line, printed
            printed += line
        url = printed.partition("Page: ")[2].split()[0]
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    passages = answer["retrieved"]
    return printed, passages if passages is None else [passage["source"] for passage in passages]


def test_serve_answers_from_the_runs_own_index_and_says_so(taught: Path) -> None:
    printed, sources = served([str(taught)], "taught")
    assert "Answers come from 3 passages of pydocs." in printed
    assert sources == ["module os.path"]


def test_serve_takes_an_index_or_none(taught: Path, notes: Path) -> None:
    printed, sources = served([str(taught), "--retrieve", str(notes)], "taught", KETTLE)
    assert printed.count("Answers come from") == 1
    assert "Answers come from 1 passage of notes." in printed
    assert sources == ["notes/home.md"]
    printed, sources = served([str(taught), "--no-retrieve"], "taught")
    assert "Answers come from" not in printed
    assert sources is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--retrieve", "RUN", "--no-retrieve"], "Leave out --retrieve or --no-retrieve"),
        (["--no-retrieve", "--quote"], "there is nothing to quote"),
        (["--retrieve", "RUN/missing.index"], "missing.index"),
        (["--retrieve", "RUN/run.toml"], "run.toml"),
        (["--retrieve", "RUN", "--stage", "base"], "none of the models has learnt to chat"),
        (["--quote", "--stage", "base"], "there is nothing to quote"),
    ],
)
def test_serve_refuses_what_it_cannot_retrieve(
    taught: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [option.replace("RUN", str(taught)) for option in options]
    assert main(["serve", str(taught), *words, "--port", "0"]) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors


def test_indexes_of_one_name_can_both_be_asked_for(taught: Path, notes: Path, tmp_path: Path) -> None:
    """The one that is given is the default; the run's own is called by its path."""
    same = tmp_path / "taught.index"
    same.write_bytes(notes.read_bytes())
    [documents] = open_documents([underhood.load(taught)], RetrievalSettings(index=same))
    assert documents is not None
    assert documents.default == "taught"
    own = str(taught / RUN_INDEX)
    assert list(documents.retrievers) == ["taught", own]
    assert documents.retrievers[own].index.passages == PASSAGES
