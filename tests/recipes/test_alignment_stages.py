"""The optional alignment stages of a build: planned where they are wanted, or added to a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tinyrun import TINY
from tinytext import write_notes
from underhood.align.rewards import SampledAnswer
from underhood.cli.main import main
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import read_events
from underhood.data.instruct import NOT_THERE
from underhood.recipes.policy_stage import documentation_reward, passage_questions
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import get_stage
from underhood.recipes.training_data import read_stage_data

OPTIONS = ["256" if word == "96" else word for word in TINY[: TINY.index("--dpo-steps")]]


def planned(run: Path) -> dict[str, int]:
    plan: dict[str, Any] = json.loads((run / "plan.json").read_text(encoding="utf-8"))["plan"]
    return {stage["stage"]: stage["steps"] for stage in plan["stages"]}


@pytest.fixture(scope="module")
def run(quick_builds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the default alignment: none."""
    folder = tmp_path_factory.mktemp("unaligned")
    write_notes(folder / "notes")
    assert main(["build", "--data", str(folder / "notes"), "--out", str(folder / "run"), *OPTIONS]) == 0
    return folder / "run"


def test_an_optional_stage_is_wanted_by_its_name_or_its_steps():
    dpo, grpo, sft = get_stage("dpo"), get_stage("grpo"), get_stage("sft")
    assert [BuildSpec().wants(stage) for stage in (sft, dpo, grpo)] == [True, False, False]
    assert [BuildSpec(align="grpo").wants(stage) for stage in (sft, dpo, grpo)] == [True, False, True]
    assert BuildSpec(stages={"dpo": {"steps": 3}}).wants(dpo)


def test_build_without_alignment_ends_with_fine_tuning(run: Path):
    assert planned(run).keys() == {"pretrain", "sft"}
    assert Run.open(run, write=False).models == ["base", "sft"]


@pytest.mark.parametrize("method", ["grpo", "ppo", "dpo"])
def test_alignment_is_added_to_a_finished_run(run: Path, method: str, tmp_path: Path):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    assert main([method, str(path), "--steps", "2"]) == 0
    assert planned(path)[method] == 2
    checkpoint = newest(path / "checkpoints" / method)
    before = newest(path / "checkpoints" / "sft")
    assert checkpoint is not None
    assert before is not None
    saved = read_checkpoint(checkpoint)
    assert (saved.state["step"], saved.state["steps"], saved.state["model"]) == (2, 2, method)
    ours, theirs = saved.tensors("model"), read_checkpoint(before).tensors("model")
    assert ours.keys() == theirs.keys()
    assert any(not (ours[name] == theirs[name]).all() for name in ours)
    steps = [
        event for event in read_events(path / "events.jsonl") if event["stage"] == method and event["kind"] == "step"
    ]
    assert steps[-1]["step"] == 2
    if method != "dpo":
        assert steps[-1].keys() >= {"reward", "kl", "entropy", "length", "cut_off", "equal_groups"}
    assert main(["chat", str(path), "-m", "What is it?", "--max-tokens", "4"]) in (0, 2)


def test_build_with_grpo_trains_and_measures_it(quick_builds: None, tmp_path: Path):
    write_notes(tmp_path / "notes")
    words = ["build", "--data", str(tmp_path / "notes"), "--out", str(tmp_path / "run"), *OPTIONS]
    assert main([*words, "--align", "grpo", "--grpo-steps", "2"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert [stage["stage"] for stage in summary["results"]["stages"]] == ["base", "sft", "grpo"]
    assert planned(tmp_path / "run")["grpo"] == 2


def test_documentation_reward_wants_the_passages_sentence_or_a_refusal(run: Path):
    def scores(expected: str, *answers: tuple[str, bool]) -> list[float]:
        return documentation_reward([SampledAnswer("", text, ended, {"answer": expected}) for text, ended in answers])

    quotation = "`join`: Joins paths. [1]"
    given = [(quotation, True), ("`join`: joins paths.", True), (quotation, False), ("`join`: Splits. [1]", True)]
    assert scores(quotation, *given, (NOT_THERE, True)) == [1, 1, 0, 0, 0]
    assert scores(NOT_THERE, (NOT_THERE, True), (quotation, True)) == [1, 0]
    questions = passage_questions(read_stage_data(run / "data"), 0)
    assert questions
    own = [SampledAnswer(each.question, each.answer, True, {"answer": each.answer}) for each in questions]
    assert documentation_reward(own) == [1.0] * len(own)
