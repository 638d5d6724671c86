"""Texts in every encoding through the commands that read them, and output to pipes that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from needs import shared_data
from underhood.cli.main import main

ENCODED = ["u16.txt", "u16be.txt", "u32.txt", "one_bad.jsonl"]


@pytest.mark.parametrize("name", ENCODED)
def test_index_reads_every_encoding(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "a.index"
    assert main(["index", str(shared_data("faults", name)), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["search", str(out), "harbour boats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"]


@pytest.mark.parametrize("name", ENCODED)
def test_tokenizer_learns_from_every_encoding(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "tokenizer.json"
    data = str(shared_data("faults", name))
    assert main(["tokenizer", str(out), "--data", data, "--vocab-size", "300", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 300


def test_schema_with_a_byte_order_mark_is_followed(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    schema = str(shared_data("faults", "schema_bom.json"))
    assert main(["generate", str(tiny_run), "The", "--schema", schema, "--json"]) == 0
    assert capsys.readouterr().out


def test_recipe_with_a_byte_order_mark_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = str(shared_data("faults", "recipe_bom.toml"))
    assert main(["build", "--config", recipe, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "is not TOML" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_pipe_takes_any_output(encoding: str, tmp_path: Path):
    """A file name that is not UTF-8, an arrow that cp1252 lacks, a face that needs a pair of escapes."""
    (tmp_path / "docs").mkdir()
    name = os.fsencode(tmp_path / "docs") + b"/caf\xe9.md"
    with open(name, "w", encoding="utf-8") as file:
        file.write("# Harbour\n\nThe café opens at nine → see the quay. 🙂\n")
    environment = os.environ | {"PYTHONIOENCODING": encoding}

    def underhood(*words: str) -> bytes:
        command = [sys.executable, "-m", "underhood", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout

    underhood("index", "docs", "--out", "a.index")
    assert b"quay" in underhood("search", "a.index", "when does it open")
    (hit,) = json.loads(underhood("search", "a.index", "when does it open", "--json").decode(encoding))["hits"]
    assert hit["text"] == "The café opens at nine → see the quay. 🙂"
    assert os.fsencode(hit["source"]) == b"docs/caf\xe9.md"
    underhood("--help")
