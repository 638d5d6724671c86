"""Whoever waits for a model to be read, tested or written sees how far it is; whoever does not look sees nothing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from infer.tiny_run import make_run
from published import make_published
from underhood.cli.main import main


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    make_published(folder, "qwen2")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Number {n}?", "response": "one", "text": f"say {n}", "label": "ab"[n % 2]} for n in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def watched(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> str:
    """What a command writes to a terminal, on either stream."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = FakeTerminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        assert main(words) == 0
    return terminal.getvalue()


def test_sft_of_a_published_model_shows_its_reading_and_scoring(
    published: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["finetune", str(published), "--data", str(data), "--steps", "1", "--out", str(tmp_path / "out")]
    shown = watched(monkeypatch, words)
    for line in ("reading the model", "validation before", "test after"):
        assert line in shown


def test_export_of_a_published_model_shows_its_reading(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = watched(monkeypatch, ["export", str(published), "--out", str(tmp_path / "a")])
    assert "reading the model" in shown


def test_classify_shows_its_reading_testing_and_labelling(
    published: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = str(tmp_path / "out")
    words = ["--epochs", "1", "--test", "0.5", "--text-column", "text", "--label-column", "label", "--out", out]
    shown = watched(monkeypatch, ["classify", str(published), "--data", str(data), *words])
    for line in ("reading the model", "testing  0 of 10 texts"):
        assert line in shown
    many = [f"say {n}" for n in range(70)]
    assert "labelling  0 of 70 texts" in watched(monkeypatch, ["classify", out, "--text", *many])


@pytest.mark.parametrize("form", ["hf", "gguf"])
def test_export_shows_its_writing_and_prints_only_the_place(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["export", str(make_run(tmp_path / "run")), "--format", form, "--out"]
    assert "writing the model" in watched(monkeypatch, [*words, str(tmp_path / "a")])
    assert main([*words, str(tmp_path / "b")]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == (f"{tmp_path / 'b'}\n", "")
