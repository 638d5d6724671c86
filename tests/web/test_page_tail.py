"""The run log as the pages follow it, against the report's own reading of the same file."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from made_run import make_run

from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.recipes.report.curves import curves
from underhood.recipes.report.run_reader import read_run, steps_of
from underhood.recipes.stages.registry import get_stage
from underhood.web.run_tail import BETWEEN, SILENCE, RunTail
from underhood.web.run_views import Runs, settings


def test_tail_curves_match_the_report_s(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evals=True)
    tail, read = RunTail(run).refresh(), read_run(run)
    for stage in ("pretrain", "sft", "dpo"):
        actual = tail.training[stage].curves(stage)
        for wanted in curves(read, stage):
            [same] = [
                curve for key, curve in actual.items() if key in get_stage(stage).curves and curve.title == wanted.title
            ]
            assert same == wanted


def test_tail_of_a_log_in_pieces_matches_the_whole(tmp_path: Path) -> None:
    """Cut anywhere, within lines and letters too, however often one looks."""
    whole = make_run(tmp_path / "whole", text="naïve 日本", hostile="…")
    growing = tmp_path / "growing"
    growing.mkdir()
    raw, chance, at = (whole / "events.jsonl").read_bytes(), random.Random(3), 0
    tail = RunTail(growing)
    while at < len(raw):
        step = chance.choice((1, 7, 300, 60_000))
        with (growing / "events.jsonl").open("ab") as log:
            log.write(raw[at : at + step])
        at += step
        tail.refresh()
        assert tail.seen == raw.rfind(b"\n", 0, at) + 1
    wanted = RunTail(whole).refresh()
    assert tail.events == wanted.events
    assert {key: piece.steps for key, piece in tail.training.items()} == {
        k: p.steps for k, p in wanted.training.items()
    }


def test_tail_drops_the_steps_of_an_earlier_attempt_matches_steps_of(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run" / "events.jsonl")
    chance = random.Random(5)
    for begin, end in ((1, 40), (21, 60), (10, 12), (12, 90)):
        log.event("sft", "start")
        for step in range(begin, end):
            extra = {"answer_accuracy": chance.random()} if step % 3 else {}
            log.event("sft", "step", step=step, steps=90, loss=chance.random(), **extra)
    log.close()
    training = RunTail(tmp_path / "run").refresh().training["sft"]
    wanted = steps_of(read_run(tmp_path / "run"), "sft")
    assert list(training.steps) == [event["step"] for event in wanted] == list(range(1, 90))
    assert list(training.columns["loss"]) == [event["loss"] for event in wanted]
    accuracy = training.columns["answer_accuracy"]
    assert [value for value in accuracy if value == value] == [
        event["answer_accuracy"] for event in wanted if "answer_accuracy" in event
    ]


def test_tail_begins_anew_when_the_log_is_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    tail = RunTail(run).refresh()
    assert len(tail.training) == 3
    short = tmp_path / "short"
    RunLog(short).event("data", "start", data="notes")
    os.replace(short, run / "events.jsonl")
    tail.refresh()
    assert tail.training == {}
    assert [event["data"] for event in tail.events] == ["notes"]
    (run / "events.jsonl").unlink()
    assert tail.refresh().events == []


def test_tail_status_tells_running_stopped_and_finished(tmp_path: Path) -> None:
    assert RunTail(make_run(tmp_path / "whole")).refresh().status() == "finished"
    half = make_run(tmp_path / "half", stop=("sft", 90))
    tail = RunTail(half).refresh()
    assert tail.open == "sft"
    assert tail.status() == "running"
    tail.time = time.time() - SILENCE - 1
    assert tail.status() == "stopped"
    log = RunLog(half / "events.jsonl")
    log.event("sft", "end", seconds=1.0)
    tail.refresh()
    assert tail.open is None
    assert tail.status() == "running"  # the next stage is about to begin
    tail.time = time.time() - BETWEEN - 1
    assert tail.status() == "stopped"


def test_runs_names_lead_out_of_no_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "whole")
    make_run(tmp_path / "secret")
    runs = Runs([tmp_path / "runs"])
    assert list(runs.folders()) == ["whole"]
    for name in ("../secret", "..", "", ".", "/etc", "whole/../../secret"):
        with pytest.raises(UserError, match="no run"):
            runs.folder(name)


def test_runs_damaged_files_of_one_do_not_hide_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    (bad / "summary.json").write_text("{")
    with (bad / "events.jsonl").open("ab") as log:
        log.write(b'\xff\xfe{"stage": 3}\n[1]\n{"stage": "sft", "kind": "step", "step": "x"}\n{"kin')
    rows = {row["name"]: row for row in Runs([tmp_path]).overview()}
    assert set(rows) == {"good", "bad"}
    assert rows["bad"]["value"] == rows["good"]["value"]


def test_runs_difference_lists_every_setting_once(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (b / "run.toml").write_text('data = "pydocs"\nminutes = 9.0\nlr = 0.1\n')
    summary = json.loads((b / "summary.json").read_text())
    summary["spec"]["d_model"] = 256
    (b / "summary.json").write_text(json.dumps(summary))
    actual = Runs([tmp_path]).difference("a", "b")
    rows = {row["key"]: (row["a"], row["b"]) for row in actual["settings"] if not row["same"]}
    assert rows == {"minutes": (5.0, 9.0), "seed": (0, None), "lr": (None, 0.1), "model.d_model": (192, 256)}
    keys = [row["key"] for row in actual["settings"]]
    assert len(keys) == len(set(keys))
    assert set(keys) == {*settings(read_run(a)), *settings(read_run(b))}
    assert all(row["a"] == row["b"] for row in actual["results"])  # the same made-up results


def test_runs_whole_tells_how_to_go_on_with_a_build_and_no_other(tmp_path: Path) -> None:
    build = make_run(tmp_path / "a build", stop=("sft", 90))
    assert Runs([tmp_path]).whole("a build")["resume"] == f"underhood build --out '{build}' --resume"
    (build / "run.toml").unlink()
    assert Runs([tmp_path]).whole("a build")["resume"] is None
