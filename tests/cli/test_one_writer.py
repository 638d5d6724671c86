"""Two processes in one run: the second writer stops with exit code 2 and is told who the first is; readers go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.test_run_lock import other_process
from tinyrun import TINY, underhood
from tinytext import write_notes
from underhood.cli.main import main
from underhood.core.run_lock import LOCK

WRITERS = {
    "build": ("build", "--out", "RUN", "--resume"),
    "tokenizer": ("tokenizer", "RUN"),
    "pretrain": ("pretrain", "RUN", "--steps", "9"),
    "sft": ("sft", "RUN", "--steps", "9"),
    "dpo": ("dpo", "RUN", "--restart"),
    "eval": ("eval", "RUN", "--restart"),
}


@pytest.mark.parametrize("verb", WRITERS)
def test_second_writer_is_told_who_the_first_is(verb: str, copy_of_tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(copy_of_tiny_run.rglob("*"))
    words = [str(copy_of_tiny_run) if word == "RUN" else word for word in WRITERS[verb]]
    with other_process(copy_of_tiny_run) as process:
        assert main(words) == 2
        err = capsys.readouterr().err
        assert f"process {process.pid} on " in err
        assert err.count("\n") == 1
        assert (copy_of_tiny_run / LOCK).exists()
        process.communicate("")
    assert sorted(copy_of_tiny_run.rglob("*")) == before


def test_readers_are_not_locked_out(copy_of_tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    with other_process(copy_of_tiny_run):
        assert main(["generate", str(copy_of_tiny_run), "The", "--max-tokens", "3"]) == 0
        assert main(["report", str(copy_of_tiny_run)]) == 0
        assert main(["eval", str(next((copy_of_tiny_run / "checkpoints" / "base").iterdir()))]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("verb", ["finetune", "classify"])
def test_tuning_folder_has_one_writer(verb: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data.jsonl"
    record = {"prompt": "a", "response": "b"} if verb == "finetune" else {"text": "a", "label": "b"}
    data.write_text(json.dumps(record) + "\n")
    (tmp_path / "out").mkdir()
    with other_process(tmp_path / "out") as process:
        assert main([verb, str(tiny_run), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
        assert f"process {process.pid} on " in capsys.readouterr().err
        process.communicate("")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_of_two_builds_at_once_one_succeeds(tmp_path: Path):
    write_notes(tmp_path / "notes")
    command = [str(Path(sys.executable).with_name("underhood")), "build", "--data", "notes", "--out", "run", *TINY]
    running = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)]
    assert "another process is writing" in refused or "already holds a run" in refused
    assert not (tmp_path / "run" / LOCK).exists()
    assert underhood("eval", "run", cwd=tmp_path).returncode == 0
