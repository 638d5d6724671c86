"""A fourth training stage is one record: planned, trained, measured, reported, served and chatted with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tinyrun import TINY
from tinytext import write_notes
from underhood.cli.main import main
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.infer.engine_spec import EngineSpec
from underhood.recipes.stages import sft
from underhood.recipes.stages.registry import all_stages, register, unregister
from underhood.web.app import create_app
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings


@dataclass(frozen=True, kw_only=True)
class AgainSettings(sft.SFTSettings):
    """Settings of the stage.

    Attributes:
        lr_scale: learning rates as a share of pretraining's.
    """

    lr_scale: float = 0.2


AGAIN = replace(
    sft.STAGE,
    name="again",
    model="again",
    starts_from="sft",
    title="Fine-tuning once more",
    short_title="Again",
    model_title="Again",
    purpose="answers more",
    command="Fine-tunes the fine-tuned model once more.",
    help="Fine-tunes the fine-tuned model of a run once more on the same conversations.",
    model_description="fine-tuned to answer questions, twice",
    colour=("#7a3e9d", "#c79be0"),
    terminal_colour="magenta",
    mark="M6 0 12 6 6 12 0 6Z",
    share=0.1,
    settings=AgainSettings,
)


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    register(AGAIN)
    yield
    unregister(AGAIN.name)


@pytest.fixture(scope="module")
def run(registered: None, quick_builds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run built with the fourth stage, by the command that a user types."""
    folder = tmp_path_factory.mktemp("again")
    write_notes(folder / "notes")
    words = ["build", "--data", str(folder / "notes"), "--out", str(folder / "run"), *TINY, "--again-steps", "3"]
    assert main(words) == 0
    return folder / "run"


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_fourth_stage_is_planned_after_the_one_that_it_starts_from(run: Path):
    assert [stage.name for stage in all_stages()] == ["pretrain", "sft", "reward", "again", "dpo", "grpo", "ppo"]
    planned = {stage["stage"]: stage["steps"] for stage in read(run / "plan.json")["plan"]["stages"]}
    assert planned == {"pretrain": 4, "sft": 3, "again": 3, "dpo": 2}


def test_fourth_stage_leaves_a_model_of_its_own(run: Path):
    path = newest(run / "checkpoints" / "again")
    assert path is not None
    state = read_checkpoint(path).state
    assert (state["model"], state["step"], state["chats"]) == ("again", 3, True)


def test_fourth_stage_is_evaluated_and_reported(run: Path):
    summary = read(run / "summary.json")
    assert [stage["stage"] for stage in summary["results"]["stages"]] == ["base", "sft", "again", "dpo"]
    compared = {(change["before"], change["after"]) for change in summary["results"]["comparisons"]}
    assert compared >= {("sft", "again"), ("sft", "dpo")}
    assert ("again", "dpo") not in compared
    assert "again" in [stage["name"] for stage in summary["stages"]]
    assert all("again" in sample["answers"] for sample in summary["samples"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Fine-tuning once more" in page
    assert "answers more" in page
    assert AGAIN.colour[0] in page
    assert AGAIN.mark in page


def test_fourth_stage_has_a_command(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["again", str(run), "--restart", "--lr-scale", "0.1", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["model"], done["steps"], done["before"], done["forgotten"]) == ("again", 3, 0, [])
    assert main(["--help"]) == 0
    assert f"  {'again':<12}  {AGAIN.command}" in capsys.readouterr().out


def test_fourth_stage_is_served_shown_and_chatted_with(run: Path, tmp_path: Path):
    registry = ModelRegistry.open([run], spec=EngineSpec(cache_bytes=4 << 20))
    settings = ServeSettings(feedback=tmp_path / "feedback.db", drain_seconds=5.0, runs=run.parent)
    with TestClient(create_app(registry, settings), base_url="http://127.0.0.1") as client:
        ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert "run:again" in ids
        request = {"model": "again", "messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=request).json()
        assert answer["usage"]["completion_tokens"] >= 1
        [stage] = [stage for stage in client.get("/ui/stages").json()["stages"] if stage["stage"] == "again"]
        assert (stage["title"], stage["mark"]) == (AGAIN.title, AGAIN.mark)
        assert AGAIN.colour[1] in client.get("/ui/stages.css").text
        shown = client.get("/ui/runs/run").json()
        assert "Again" in [stage["title"] for stage in shown["pipeline"]]
        assert {"stage": "again", "hue": "again"}.items() <= next(
            checkpoint for checkpoint in shown["checkpoints"] if checkpoint["stage"] == "again"
        ).items()
