"""Runs of `finetune` and `classify` are opened like those of a build; commands that need stages say what to use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import underhood
from infer.tiny_run import make_run
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.core.runlog import read_events
from underhood.recipes.finetune_spec import ClassifySpec, FinetuneSpec
from underhood.recipes.finetuned_run import FinetunedRun

STAGE_COMMANDS = ["pretrain", "sft", "dpo", "tokenizer"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned run and a classifier, made by the commands from the same tiny model."""
    folder = tmp_path_factory.mktemp("tuned")
    base = str(make_run(folder / "base", stages=("base",)))
    rows = [{"prompt": f"item {n}", "response": "changed"} for n in range(24)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "marks.tsv").write_text("\n".join(f"item {n}\t{n % 2}" for n in range(40)))
    chat, marks = str(folder / "chat.jsonl"), str(folder / "marks.tsv")
    assert main(["finetune", base, "--data", chat, "--steps", "3", "--out", str(folder / "tuned")]) == 0
    assert main(["classify", base, "--data", marks, "--epochs", "1", "--out", str(folder / "classifier")]) == 0
    return folder


@pytest.mark.parametrize(
    ("name", "stage", "kind"), [("tuned", "sft", FinetuneSpec), ("classifier", "classify", ClassifySpec)]
)
def test_opened_run_has_the_settings_results_and_curves_of_its_training(
    folder: Path, name: str, stage: str, kind: type
) -> None:
    run = underhood.open_run(folder / name)
    assert isinstance(run, FinetunedRun)
    assert isinstance(run.spec, kind)
    assert (run.models, run.spec.model) == ([stage], str(folder / "base"))
    assert repr(run) == f"<run {folder / name}: {stage}, made from {folder / 'base'}>"
    assert run.results == json.loads((folder / name / "results.json").read_text())
    curve = run.curves()[stage]
    events = read_events(folder / name / "events.jsonl")
    logged = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    np.testing.assert_array_equal(curve.steps, list(logged))
    np.testing.assert_array_equal(curve.loss, list(logged.values()))
    assert "chat.jsonl" in run._repr_html_() or "marks.tsv" in run._repr_html_()


def test_run_of_a_build_stays_one_and_other_folders_are_refused(folder: Path, tiny_run: Path) -> None:
    assert type(underhood.open_run(tiny_run)) is underhood.Run
    with pytest.raises(UserError, match="there is no run in"):
        underhood.open_run(folder)
    with pytest.raises(UserError, match="was not made by underhood finetune"):
        FinetunedRun.open(tiny_run)


@pytest.mark.parametrize("name", ["tuned", "classifier"])
@pytest.mark.parametrize("command", STAGE_COMMANDS)
def test_command_of_a_stage_says_what_takes_a_fine_tuned_model(
    folder: Path, command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((folder / name).rglob("*"))
    assert main([command, str(folder / name)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    takes = f"dpo {folder / name} --data FILE trains it" if command == "dpo" else "finetune trains it"
    assert f"{folder / name} holds a fine-tuned model, not a run with stages. underhood {takes}" in error
    assert sorted((folder / name).rglob("*")) == before


def test_what_the_refusal_names_takes_a_fine_tuned_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, text = str(folder / "tuned"), tmp_path / "text.txt"
    text.write_text("item 3 is changed\n" * 40)
    assert main(["eval", tuned, "--text", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (
        main(["finetune", tuned, "--data", str(folder / "chat.jsonl"), "--steps", "1", "--out", str(tmp_path / "more")])
        == 0
    )
    assert FinetunedRun.open(tmp_path / "more").spec.model == tuned
    assert main(["report", tuned]) == 0
    assert (folder / "tuned" / "report.html").exists()
    assert main(["export", tuned, "--out", str(tmp_path / "exported")]) == 0
