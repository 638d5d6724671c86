"""Stages as verbs of their own: the same as a build when done in order, and careful when redone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from tinyrun import TINY
from tinytext import write_notes
from underhood.cli.main import main
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.recipes.run import Run
from underhood.recipes.stage_jobs import few_steps_warning
from underhood.recipes.stages.registry import all_stages
from underhood.text.bpe import BytePairTokenizer

pytestmark = pytest.mark.usefixtures("quick_builds")


@pytest.fixture(scope="module")
def pretrained(quick_builds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as ``underhood pretrain`` leaves it."""
    folder = tmp_path_factory.mktemp("stages")
    write_notes(folder / "notes")
    assert main(["pretrain", str(folder / "run"), "--data", str(folder / "notes"), *TINY]) == 0
    return folder / "run"


@pytest.fixture
def run(pretrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pretrained, tmp_path / "run"))


Verb = Callable[..., dict[str, Any]]


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str]) -> Verb:
    """Calls a verb with --json and returns the object that it printed."""

    def call(*words: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def weights(run: Path, model: str) -> torch.Tensor:
    path = newest(run / "checkpoints" / model)
    assert path is not None
    return torch.cat([tensor.flatten() for _, tensor in sorted(read_checkpoint(path).tensors("model").items())])


def complaint(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


def test_stages_in_order_make_what_build_makes(run: Path, verb: Verb, tmp_path: Path):
    assert verb("sft", run)["steps"] == 3
    assert verb("dpo", run)["steps"] == 2
    measured = verb("eval", run)
    notes = run.parent.parent / "none"  # the text is not read again
    assert not notes.exists()
    data = json.loads((run / "data.json").read_text())["facts"]["path"]
    assert main(["build", "--out", str(tmp_path / "whole"), "--data", data, *TINY]) == 0
    for model in ("base", "sft", "dpo"):
        assert torch.equal(weights(run, model), weights(tmp_path / "whole", model)), model
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())["table"]
    assert measured["stages"] == whole["stages"]
    # And build takes a run on from where the verbs have left it.
    (run / "results.json").unlink()
    assert main(["build", "--out", str(run), "--resume"]) == 0
    assert json.loads((run / "summary.json").read_text())["results"]["stages"] == whole["stages"]


def test_stage_without_the_one_before_names_the_verb_that_makes_it(run: Path, capsys: pytest.CaptureFixture[str]):
    assert f"Make it with underhood sft {run}." in complaint(capsys, "dpo", run)
    shutil.rmtree(run / "checkpoints")
    assert f"Make it with underhood pretrain {run}." in complaint(capsys, "sft", run)
    assert "has no finished model" in complaint(capsys, "eval", run)


def test_finished_stage_is_left_alone(run: Path, verb: Verb):
    before = weights(run, "base")
    again = verb("pretrain", run)
    assert (again["before"], again["steps"]) == (4, 4)
    assert torch.equal(weights(run, "base"), before)


def test_more_steps_go_on_and_remove_what_was_built_on_fewer(run: Path, verb: Verb):
    verb("sft", run)
    verb("eval", run)
    before = weights(run, "base")
    longer = verb("pretrain", run, "--steps", "6")
    assert (longer["before"], longer["steps"], longer["forgotten"]) == (4, 6, ["sft"])
    assert not torch.equal(weights(run, "base"), before)
    assert newest(run / "checkpoints" / "sft") is None
    assert not (run / "results.json").exists()


def test_fewer_steps_than_done_are_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    assert "has had 4 steps already" in complaint(capsys, "pretrain", run, "--steps", "3")
    assert "steps must be at least 1, got 0" in complaint(capsys, "pretrain", run, "--steps", "0")


def test_again_starts_over_and_repeats_exactly(run: Path, verb: Verb):
    before = weights(run, "base")
    assert verb("pretrain", run, "--restart")["before"] == 0
    assert torch.equal(weights(run, "base"), before)
    verb("sft", run)
    first = weights(run, "sft")
    verb("sft", run, "--restart", "--lr-scale", "0.01")
    assert not torch.equal(weights(run, "sft"), first)


def test_other_settings_need_again_and_those_of_the_data_another_run(run: Path, capsys: pytest.CaptureFixture[str]):
    assert "Give --restart" in complaint(capsys, "pretrain", run, "--d-model", "64")
    assert "Make another run" in complaint(capsys, "pretrain", run, "--vocab-size", "500", "--restart")
    assert "Make another run" in complaint(capsys, "tokenizer", run, "--vocab-size", "500")


def test_again_with_another_d_model_makes_another_model(run: Path, verb: Verb):
    verb("pretrain", run, "--restart", "--d-model", "48")
    state = read_checkpoint(Path(verb("pretrain", run)["checkpoint"])).state
    assert state["spec"]["d_model"] == 48
    assert "d_model = 48" in (run / "run.toml").read_text()


def test_stage_starts_from_a_named_checkpoint(run: Path, verb: Verb, capsys: pytest.CaptureFixture[str]):
    first = next((run / "checkpoints" / "base").glob("step-*"))
    from_run = verb("sft", run)["loss"]
    assert "has a sft model already" in complaint(capsys, "sft", first)
    assert verb("sft", first, "--restart")["loss"] == from_run
    assert "can't start from" in complaint(capsys, "pretrain", first)
    assert "can't start from" in complaint(capsys, "sft", newest(run / "checkpoints" / "sft") or "")
    skipped = verb("dpo", first)  # alignment right after pretraining
    assert skipped["steps"] == 2


def test_eval_measures_the_models_there_are_once(run: Path, verb: Verb, capsys: pytest.CaptureFixture[str]):
    actual = verb("eval", run)
    assert [stage["stage"] for stage in actual["stages"]] == ["base"]
    written = (run / "results.json").stat().st_mtime_ns
    assert verb("eval", run, "--stage", "base")["stages"] == actual["stages"]
    assert (run / "results.json").stat().st_mtime_ns == written
    first = verb("eval", newest(run / "checkpoints" / "base") or "")
    assert first["stages"][0]["measurements"] == actual["stages"][0]["measurements"]
    assert (run / "results.json").stat().st_mtime_ns == written
    assert "has no finished sft model" in complaint(capsys, "eval", run, "--stage", "sft")
    assert verb("eval", run, "--restart")["stages"] == actual["stages"]
    assert (run / "results.json").stat().st_mtime_ns > written


def test_tokenizer_of_a_run_and_of_a_file(run: Path, verb: Verb, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shown = verb("tokenizer", run)
    assert shown["vocab_size"] == 400
    assert shown["bytes_per_token"] > 1.5
    data = json.loads((run / "data.json").read_text())["facts"]["path"]
    file = tmp_path / "words.json"
    made = verb("tokenizer", file, "--data", data, "--vocab-size", "350")
    ours, theirs = BytePairTokenizer.load(file), Tokenizer.from_file(str(file))
    text = "The gardener remembers the harbour."
    assert ours.encode(text) == theirs.encode(text).ids
    assert (made["vocab_size"], ours.vocab_size) == (350, 350)
    assert "is there already" in complaint(capsys, "tokenizer", file, "--data", data)
    assert verb("tokenizer", file, "--data", data, "--vocab-size", "360", "--restart")["vocab_size"] == 360


def test_few_steps_are_said_unless_they_were_asked_for(run: Path, capsys: pytest.CaptureFixture[str]):
    opened = Run.open(run)
    assert few_steps_warning(opened, all_stages()[0]) is None, "--pretrain-steps asked for four"
    text = (run / "run.toml").read_text(encoding="utf-8")
    (run / "run.toml").write_text(text.replace("steps = 4", "lr_scale = 1.0"), encoding="utf-8")
    warning = few_steps_warning(Run.open(run), all_stages()[0])
    assert warning is not None
    assert warning.startswith("Only 4 steps of pretraining fit in the time")
    capsys.readouterr()
    assert main(["pretrain", str(run)]) == 0
    assert "Only 4 steps of pretraining fit" in " ".join(capsys.readouterr().out.split())
