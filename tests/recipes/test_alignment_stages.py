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
from underhood.infer.load import load
from underhood.infer.stages import stages_of
from underhood.recipes.policy_stage import documentation_reward, passage_questions
from underhood.recipes.reward_tuning import load_reward_model
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


def test_reward_model_is_added_to_a_run_and_ppo_learns_from_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    assert main(["ppo", str(path), "--steps", "1", "--reward", "model"]) == 2
    error = capsys.readouterr().err
    assert "has no finished reward model, which ppo learns from" in error
    assert f"underhood reward {path}" in error
    assert main(["reward", str(path), "--steps", "2"]) == 0
    assert f"underhood ppo {path} --reward model" in " ".join(capsys.readouterr().out.split())
    checkpoint = newest(path / "checkpoints" / "reward")
    assert checkpoint is not None
    state = read_checkpoint(checkpoint).state
    assert (state["step"], state["steps"], state["model"]) == (2, 2, "reward")
    assert load_reward_model(path).rejected == state["rejected"]
    assert load(path).stage == "sft", "a reward model writes no text"
    assert stages_of(path) == ["base", "sft"]
    file = tmp_path / "score.jsonl"
    file.write_text(json.dumps({"prompt": "What is it?", "answers": ["a lantern", "no"]}) + "\n")
    assert main(["reward", str(path), "--score", str(file)]) == 0
    capsys.readouterr()
    assert main(["ppo", str(path), "--steps", "1", "--reward", "model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "ppo"
    assert main(["reward", str(path), "--restart", "--steps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forgotten"] == ["ppo"], "it learnt from the scores of another"


def test_build_with_grpo_and_ppo_trains_the_reward_model_that_ppo_learns_from(quick_builds: None, tmp_path: Path):
    write_notes(tmp_path / "notes")
    path = tmp_path / "run"
    words = ["build", "--data", str(tmp_path / "notes"), "--out", str(path), *OPTIONS, "--grpo-steps", "2"]
    assert main([*words, "--align", "ppo", "--ppo-reward", "model", "--ppo-steps", "1", "--reward-steps", "2"]) == 0
    steps = {"pretrain": 4, "sft": 3, "reward": 2, "grpo": 2, "ppo": 1}
    assert [*planned(path).items()] == [*steps.items()]
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    stages = {stage["stage"]: stage["measurements"] for stage in summary["results"]["stages"]}
    assert [*stages] == ["base", "sft", "reward", "grpo", "ppo"]
    assert [measured["name"] for measured in stages["reward"]] == ["preference accuracy"]
    assert all("ppo" in sample["answers"] for sample in summary["samples"])
    assert load(path).stage == "ppo"
    [step] = [e for e in read_events(path / "events.jsonl") if e["stage"] == "ppo" and e["kind"] == "step"]
    assert not float(step["reward"]).is_integer(), "the text's own reward is 0 or 1, and of this model 0"
    assert main(["reward", str(path), "--restart"]) == 0
    assert newest(path / "checkpoints" / "ppo") is None
    assert newest(path / "checkpoints" / "grpo") is not None


def test_reward_model_is_wanted_where_it_is_used():
    reward = get_stage("reward")
    assert not BuildSpec(align="ppo").wants(reward)
    assert BuildSpec(align="ppo", stages={"ppo": {"reward": "model"}}).wants(reward)
    assert not BuildSpec(align="grpo", stages={"ppo": {"reward": "model"}}).wants(reward)


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
