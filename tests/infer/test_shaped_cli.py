"""``underhood generate`` with an end or a form that the text has to keep to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_run import make_run

import underhood
from underhood.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("place") / "demo")


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([*map(str, words)])
    return code, *capsys.readouterr()


def test_stop_ends_the_text_before_it_in_one_piece_and_streamed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = underhood.load(run).generate("The", max_tokens=30, seed=2)
    stop = whole[9:12]
    common = ("generate", run, "The", "--max-tokens", "30", "--seed", "2", "--stop", "never this", stop)
    expected = whole[: whole.index(stop)] + "\n"
    assert call(capsys, *common) == (0, expected, "")
    assert call(capsys, *common, "--stream") == (0, expected, "")
    _, out, _ = call(capsys, *common, "--json", "--n", "2")
    first, second = json.loads(out)["completions"]
    assert (first["text"] + "\n", first["finish"]) == (expected, "stop")
    assert first["text"] != second["text"]


def test_repetition_penalty_changes_what_is_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("generate", run, "The list", "--max-tokens", "30", "--temperature", "0")
    _, plain, _ = call(capsys, *common)
    assert call(capsys, *common, "--repetition-penalty", "1")[1] == plain
    assert call(capsys, *common, "--repetition-penalty", "3")[1] != plain


def test_regex_and_schema_hold_whatever_the_model_thinks(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = ("generate", run, "The", "--max-tokens", "60", "--seed", "3", "--n", "3")
    code, out, err = call(capsys, *common, "--regex", "[a-d]{3}-[0-9]")
    assert (code, err) == (0, "")
    assert all(re.fullmatch("[a-d]{3}-[0-9]", text) for text in out.strip().split("\n---\n"))
    schema = '{"type": "array", "items": {"enum": ["red", 7]}, "minItems": 1, "maxItems": 3}'
    (tmp_path / "schema.json").write_text(schema, encoding="utf-8")
    _, out, _ = call(capsys, *common, "--schema", schema)
    assert call(capsys, *common, "--schema", tmp_path / "schema.json")[1] == out
    for text in out.strip().split("\n---\n"):
        value = json.loads(text)
        assert 1 <= len(value) <= 3
        assert set(value) <= {"red", 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--regex", "(a"), "unclosed group"),
        (("--schema", '{"type": "strin"}'), "Invalid type: strin"),
        (("--schema", "nowhere.json"), "there is no JSON schema in nowhere.json"),
        (("--schema", "{}", "--regex", "a"), "a continuation keeps to one form"),
        (("--repetition-penalty", "0"), "repetition_penalty is out of range"),
        (("--stop", ""), "stop is out of range"),
    ],
)
def test_mistakes_cost_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    code, out, err = call(capsys, "generate", run, "The", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
