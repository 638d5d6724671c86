"""Without a run, commands take the one whose log has the latest event, and say which."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from recipes.export_run import export_run
from tinyrun import underhood
from underhood.cli.main import main
from underhood.cli.newest_run import last_event, run_or_newest
from underhood.core.checkpoint import write_checkpoint
from underhood.core.errors import UserError


def make_run(path: Path, time: float, *, model: bool = True) -> Path:
    path.mkdir(parents=True)
    lines = [{"time": time - 5, "stage": "data", "kind": "start"}, {"time": time, "stage": "eval", "kind": "end"}]
    (path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if model:
        write_checkpoint(path / "checkpoints" / "base", 1, {}, {"order": 0})
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_newest_run_is_that_of_the_latest_event_whatever_the_files_say(here: Path, capsys: pytest.CaptureFixture[str]):
    make_run(here / "runs" / "old", 1000.0)
    make_run(here / "runs" / "new", 3000.0)
    make_run(here / "aside", 2000.0)
    os.utime(here / "runs" / "old" / "events.jsonl", (9000, 9000))
    assert run_or_newest(None) == Path("runs/new")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "runs/new, the newest of 3 runs here\n")


def test_newest_run_passes_over_runs_without_a_model_unless_they_will_do(here: Path):
    make_run(here / "runs" / "old", 1000.0)
    make_run(here / "runs" / "begun", 3000.0, model=False)
    assert run_or_newest(None) == Path("runs/old")
    assert run_or_newest(None, model=False) == Path("runs/begun")
    assert run_or_newest(Path("runs/elsewhere")) == Path("runs/elsewhere")


def test_last_event_of_a_torn_log_is_the_last_whole_one(here: Path):
    run = make_run(here / "torn", 1234.5)
    with (run / "events.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"time": 99999.0, "sta')
    assert last_event(run) == 1234.5


def test_without_any_run_the_error_says_how_to_make_one(here: Path):
    (here / "runs").mkdir()
    with pytest.raises(UserError, match="no run was named, and there is none here") as caught:
        run_or_newest(None)
    assert "underhood build" in str(caught.value)


@pytest.mark.parametrize("command", ["chat", "serve", "report", "eval", "generate", "export"])
def test_commands_without_a_run_fail_with_that_error(here: Path, command: str):
    done = underhood(command, cwd=here)
    assert done.returncode == 2
    assert "no run was named" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_takes_the_newest_run(tiny_run: Path, here: Path):
    (here / "runs").mkdir()
    (here / "runs" / "tiny").symlink_to(tiny_run, target_is_directory=True)
    alone = underhood("generate", "The first words", "--max-tokens", "5", cwd=here)
    named = underhood("generate", "runs/tiny", "The first words", "--max-tokens", "5", "--temperature", "0", cwd=here)
    again = underhood("generate", "The first words", "--max-tokens", "5", "--temperature", "0", cwd=here)
    assert alone.returncode == 0, alone.stderr
    assert "runs/tiny, the only run here" in alone.stderr
    assert again.stdout == named.stdout


def test_export_takes_the_newest_run_and_writes_into_it(tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    make_run(here / "runs" / "old", 1000.0)
    run = export_run(here / "runs" / "new")
    (run / "events.jsonl").write_text('{"time": 2000.0}\n', encoding="utf-8")
    assert main(["export", "--dtype", "float16"]) == 0
    shown = capsys.readouterr()
    assert "runs/new, the newest of 2 runs here\n" in shown.err
    made = Path(shown.out.strip())
    assert made.is_relative_to("runs/new/export")
    assert (made / "model.safetensors").exists()
    assert not (here / "runs" / "old" / "export").exists()
