"""The run log: whole lines, whatever happened while they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import file_size_limit

from underhood.core.errors import UserError
from underhood.core.runlog import RunLog, read_events


def test_runlog_events_read_back_in_order_and_reach_listeners(tmp_path: Path):
    log = RunLog(tmp_path / "run" / "events.jsonl")
    heard: list[dict] = []
    log.listeners.append(heard.append)
    for step in range(3):
        log.event("pretrain", "step", step=step, loss=1.5, text="größer\n")
    read = list(read_events(tmp_path / "run" / "events.jsonl"))
    assert read == heard
    assert [record["step"] for record in read] == [0, 1, 2]
    assert read[0].keys() == {"time", "stage", "kind", "step", "loss", "text"}
    log.close()
    log.close()


def test_runlog_writes_null_for_what_json_cannot_hold(tmp_path: Path):
    RunLog(tmp_path / "e").event("s", "k", a=float("nan"), b=float("inf"), c=1.0)
    text = (tmp_path / "e").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    record = json.loads(text)
    assert (record["a"], record["b"], record["c"]) == (None, None, 1.0)


def test_runlog_without_a_file_still_tells_listeners(tmp_path: Path):
    heard: list[dict] = []
    log = RunLog(None)
    log.listeners.append(heard.append)
    log.event("s", "k")
    assert len(heard) == 1
    assert list(read_events(tmp_path / "nothing")) == []


def test_runlog_torn_at_any_byte_loses_one_line_only(tmp_path: Path):
    file = tmp_path / "events.jsonl"
    log = RunLog(file)
    for step in range(2):
        log.event("s", "k", step=step, text="né")
    log.close()
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        file.write_bytes(whole[:end])
        assert [record["step"] for record in read_events(file)] in ([0], [0, 1])
        again = RunLog(file)
        again.event("s", "k", step=2)
        again.close()
        steps = [record["step"] for record in read_events(file)]
        # Only where nothing but the newline is missing is the torn line a whole one.
        assert steps == ([0, 1, 2] if end == len(whole) - 1 else [0, 2])


@given(st.binary(max_size=60))
def test_read_events_passes_over_any_rubbish(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes):
    file = tmp_path_factory.mktemp("log") / "events.jsonl"
    file.write_bytes(rubbish)
    log = RunLog(file)
    log.event("s", "k", step=7)
    log.close()
    assert list(read_events(file))[-1]["step"] == 7


def test_runlog_on_a_full_disk_says_so(tmp_path: Path):
    log = RunLog(tmp_path / "events.jsonl")
    log.event("s", "k", step=1)
    with file_size_limit(4096), pytest.raises(UserError, match=r"can't write .*events\.jsonl"):
        log.event("s", "k", step=2, text="x" * 10_000)
    log.close()
    assert [record["step"] for record in read_events(tmp_path / "events.jsonl")] == [1]


def test_runlog_in_an_impossible_place_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        RunLog(tmp_path / "file" / "events.jsonl")
    with pytest.raises(UserError, match="can't write"):
        RunLog(tmp_path)
