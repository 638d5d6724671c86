"""``underhood best-of``: the file that it writes, and that finetune reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infer.tiny_run import make_run
from underhood.cli.main import main
from underhood.data.conversations import read_conversations


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_run(tmp_path / "base-run", stages=("base", "sft"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"item {n}", "answer": "a"}) + "\n" for n in range(6)))
    return path


def test_winners_are_written_and_finetune_learns_from_them(
    base: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own, out = tmp_path / "mine.py", tmp_path / "best.jsonl"
    own.write_text("def longest(answers):\n    return [len(each.answer) for each in answers]\n")
    words = ["best-of", str(base), "--data", str(prompts), "--reward", f"{own}:longest", "--out", str(out)]
    assert main([*words, "--n", "4", "--max-new-tokens", "6", "--cut-off", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["prompts"] == 6
    assert done["best"] > done["mean"]
    conversations = read_conversations(out)
    assert len(conversations) == done["kept"]
    assert conversations.unused == {}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["score"] for row in rows] == [len(row["messages"][1]["content"]) for row in rows]
    tune = ["finetune", str(base), "--data", str(out), "--out", str(tmp_path / "tuned")]
    assert main([*tune, "--steps", "1", "--validation", "0", "--test", "0"]) == 0
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_answers_that_were_cut_off_are_left_out_and_counted(
    base: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "best.jsonl"
    words = ["best-of", str(base), "--data", str(prompts), "--reward", "finished", "--out", str(out)]
    assert main([*words, "--n", "1", "--max-new-tokens", "1", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["kept"] + done["cut_off"] == 6
    assert done["cut_off"] > 0
