"""``underhood grpo`` and ``ppo`` on tiny runs, from the command to a model that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.tiny_run import make_run
from underhood.align.rewards import SampledAnswer
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.core.runlog import read_events
from underhood.data.arithmetic_problems import addition_problems
from underhood.infer.load import load
from underhood.recipes.finetuned_run import FinetunedRun
from underhood.recipes.open_run import open_run
from underhood.recipes.policy_run import train_policy
from underhood.recipes.policy_settings import GRPOSettings, PPOSettings
from underhood.recipes.reward_choice import choose_reward

QUICK: dict[str, Any] = {"steps": 2, "prompts": 2, "answers": 2, "max_new_tokens": 5, "lr": 1e-3}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_run(tmp_path / "base-run", stages=("base", "sft"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(each.record()) + "\n" for each in addition_problems(9, count=20)))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("def short(answers):\n    return [-len(each.answer) for each in answers]\n")
    return path


def test_the_reward_of_a_missing_end_can_be_switched_off(base: Path, data: Path, own: Path, tmp_path: Path):
    """Nothing that this model writes ends: the rewards are the penalty, or the user's own."""
    models: dict[str, Any] = {}
    for value in ("-3", "none"):
        out = tmp_path / value
        words = ["ppo", str(base), "--data", str(data), "--reward", f"{own}:short", "--out", str(out)]
        words += [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
        assert main([*words, "--missing-end-reward", value, "--value-clip", "none", "--json"]) == 0
        spec = FinetunedRun.open(out).spec
        assert isinstance(spec, PPOSettings)
        assert (spec.missing_end_reward, spec.value_clip) == (None if value == "none" else -3.0, None)
        assert all(e["cut_off"] == 1 for e in read_events(out / "events.jsonl") if e["kind"] == "step")
        models[value] = load(out).model
    pairs = zip(models["-3"].parameters(), models["none"].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
@pytest.mark.parametrize("rank", [0, 4])
def test_command_leaves_a_run_that_answers(name: str, rank: int, base: Path, data: Path, own: Path, tmp_path: Path):
    out = tmp_path / "out"
    words = [name, str(base), "--data", str(data), "--reward", f"{own}:short", "--out", str(out)]
    words += [f"--{key.replace('_', '-')}={value}" for key, value in (QUICK | {"lora_rank": rank}).items()]
    assert main([*words, "--json"]) == 0
    loaded = load(out)
    assert (loaded.stage, loaded.step, loaded.chats) == (name, 2, True)
    assert not [each for each, _ in loaded.model.named_parameters() if "lora" in each]
    assert isinstance(loaded.chat("3+4=", max_tokens=5), str)
    assert (out / "adapter").exists() == (rank > 0)
    before = load(base).model
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), loaded.model.parameters(), strict=True)]
    assert any(moved)
    run = open_run(out)
    assert isinstance(run, FinetunedRun)
    assert run.spec.reward == f"{own}:short"  # type: ignore[union-attr]
    assert len(run.curves()[name]["reward"]) == 2
    assert "Mean reward" in run.curves()._repr_html_()  # pyright: ignore[reportPrivateUsage]
    results = run.results
    assert results["before"]["reward"] <= 0
    assert results["held_out"] == 2


def test_a_run_without_a_template_is_warned_of_with_counts(base: Path, data: Path, tmp_path: Path):
    spec = GRPOSettings(model=str(base), stage="base", data=str(data), reward="number", validation=0.0, **QUICK)
    log, work = train_policy(spec, tmp_path / "out")
    done = work()
    log.close()
    assert done.plain == 20
    notes = [event["text"] for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "note"]
    assert "warning: the model has no chat template: 20 prompts are continued as plain text" in notes
    assert not load(tmp_path / "out").chats


def test_ppo_with_pretraining_text(base: Path, data: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("A list holds items, and the items of a list can be changed. " * 20)
    with pytest.raises(ValueError, match="belong together"):
        PPOSettings(model=str(base), data=str(data), reward="exact", ptx_weight=1.0)
    spec = PPOSettings(
        model=str(base), data=str(data), reward="exact", ptx_weight=1.0, ptx_data=str(text), validation=0.0, **QUICK
    )
    log, work = train_policy(spec, tmp_path / "out")
    work()
    log.close()
    steps = [event for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "step"]
    assert all(event["ptx_loss"] > 0 for event in steps)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("exactly", "there is no reward 'exactly'.*mean exact"),
        ("nowhere.py:reward", "there is no file nowhere.py"),
        ("{own}:long", "has no function 'long'.*short"),
        ("{failing}:reward", r"failing.py line 2: ZeroDivisionError"),
    ],
)
def test_a_reward_that_does_not_work_is_a_mistake_in_one_line(
    reward: str, message: str, base: Path, data: Path, own: Path, tmp_path: Path
):
    failing = tmp_path / "failing.py"
    failing.write_text("def reward(answers):\n    return 1 / 0\n")
    answers = [SampledAnswer("What?", "x", True)]
    with pytest.raises(UserError, match=f"(?s){message}"):
        choose_reward(reward.format(own=own, failing=failing))(answers)


def test_a_prompt_without_its_answer_is_named_by_line(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2="}\n')
    out = tmp_path / "out"
    assert main(["grpo", str(base), "--data", str(path), "--reward", "exact", "--out", str(out)]) == 2
    assert "bad.jsonl line 2 has no 'answer'" in capsys.readouterr().err
    assert not out.exists()


def test_prompts_that_are_too_long_are_counted(base: Path, tmp_path: Path):
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": "word " * 200, "answer": "2"}] + [{"prompt": f"{n}+1=", "answer": "2"} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = GRPOSettings(model=str(base), data=str(path), reward="exact", validation=0.0, **QUICK)
    log, work = train_policy(spec, tmp_path / "out")
    assert work().prompts == 4
    log.close()
    notes = [event["text"] for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "note"]
    assert any("1 prompts are left out, too long for 96 tokens with 5 for the answer" in note for note in notes)
