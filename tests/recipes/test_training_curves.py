"""A run's curves are what its log says, also after a kill and a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import underhood
from underhood.core.errors import UserError


def write_run(folder: Path, events: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "run.toml").write_text("")
    lines = [json.dumps({"time": "2026-01-01T00:00:00+00:00"} | event) for event in events]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def step(number: int, loss: float, **more: object) -> dict[str, object]:
    return {"stage": "pretrain", "kind": "step", "step": number, "steps": 40, "loss": loss, **more}


def test_curves_are_the_logged_values(tmp_path: Path):
    events = [step(10, 3.0, grad_norm=1.0), step(20, 2.0), step(30, 1.5, grad_norm=0.5)]
    events.append({"stage": "pretrain", "kind": "eval", "step": 30, "bits_per_byte": 1.7})
    run = underhood.open_run(write_run(tmp_path / "run", events))
    curves = run.curves()
    assert list(curves) == ["pretrain"]
    assert len(curves) == 1
    pretraining = curves["pretrain"]
    assert pretraining.steps.tolist() == [10, 20, 30]
    assert pretraining.loss.tolist() == [3.0, 2.0, 1.5]
    assert math.isnan(pretraining["grad_norm"][1])
    assert pretraining.held_out["bits_per_byte"].tolist() == [1.7]
    assert pretraining.held_out_steps.tolist() == [30]
    assert "loss 3.000 → 1.500" in repr(curves)
    assert "<svg" in curves._repr_html_()
    assert "<svg" in run._repr_html_()
    assert repr(run) == f"<run {run.path}: no model yet>"


def test_steps_logged_twice_count_once_and_the_later_ones_win(tmp_path: Path):
    run = underhood.open_run(write_run(tmp_path / "run", [step(10, 3.0), step(20, 9.0), step(20, 2.0), step(30, 1.0)]))
    assert run.curves()["pretrain"].loss.tolist() == [3.0, 2.0, 1.0]


def test_what_was_not_logged_is_named(tmp_path: Path):
    run = underhood.open_run(write_run(tmp_path / "run", [step(10, 3.0), step(20, 2.0)]))
    with pytest.raises(UserError, match="Did you mean 'loss'"):
        run.curves()["pretrain"]["los"]
    with pytest.raises(UserError, match="expected pretrain"):
        run.curves()["dpo"]
    empty = underhood.open_run(write_run(tmp_path / "empty", []))
    assert repr(empty.curves()).endswith("nothing logged yet>")
    with pytest.raises(UserError, match="no stage has logged a step yet"):
        empty.curves()["pretrain"]
    assert empty._repr_html_()
