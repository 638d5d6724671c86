"""``underhood inspect`` with --compare and --through, on a run with snapshots."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from tiny_run import make_run, tiny_model

from underhood.cli import inspect_training_views
from underhood.cli.main import main
from underhood.cli.progress import steps_line
from underhood.core.checkpoint import module_tensors, read_checkpoint, write_checkpoint
from underhood.infer.load import load
from underhood.inspect.comparison import compare
from underhood.inspect.stage_patching import SITES, ModelRun
from underhood.inspect.trace import trace

PROMPT = "The list is a"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    state = read_checkpoint(folder / "checkpoints" / "base" / "step-00000010").state
    for step in (0, 2, 5):
        model = tiny_model(load(folder).tokenizer, 50 + step)
        tensors = {name: tensor.half() for name, tensor in module_tensors(model).items()}
        write_checkpoint(folder / "snapshots" / "base", step, {"model": tensors}, state, keep=100)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--through"],
        ["--through", "--view", "attention", "--layer", "1"],
        ["--through", "--view", "parts", "--other", "e"],
        ["--through", "--view", "loss", "--stage", "base"],
        ["--through", "--view", "induction"],
        ["--compare", "base"],
        ["--compare", "base", "--view", "patch"],
        ["--compare", "sft", "--position", "2", "--answer", "a", "--other", "e"],
        ["--chat", "--through"],
        ["--chat", "--compare", "sft"],
        ["--view", "compare", "--against", f"{PROMPT}2"],
    ],
)
def test_every_view_fits_into_80_columns(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]):
    prompt = f"{PROMPT}1" if "--against" in words else PROMPT  # of as many tokens as the other one
    assert main(["inspect", str(run), prompt, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 80


def test_every_checkpoint_is_listed(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--through"]) == 0
    shown = capsys.readouterr().out
    for label in ("base 0", "base 2", "base 5", "base 10", "sft 10", "dpo 10"):
        assert label in shown
    assert "6 checkpoints, base 0 to dpo 10" in shown
    assert main(["inspect", str(run), PROMPT, "--through", "--stage", "base"]) == 0
    assert "dpo" not in capsys.readouterr().out


def test_json_has_the_numbers_of_each_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--through", "--json"]) == 0
    checkpoints = json.loads(capsys.readouterr().out)["checkpoints"]
    assert [(each["stage"], each["step"]) for each in checkpoints][-2:] == [("sft", 10), ("dpo", 10)]
    expected = load(run, "sft").next(PROMPT, k=5)
    shares = [share for _, share in checkpoints[-2]["tokens"]]
    assert shares == pytest.approx([token.probability for token in expected], abs=1e-4)
    assert checkpoints[-1]["ranks"][-1] == 1


def test_json_of_a_comparison_is_the_comparison(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--compare", "base", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    models = load(run, "base"), load(run)
    beside = compare(*(ModelRun(model, trace(model, PROMPT, SITES)) for model in models))
    assert values["lens_kl"][-1] == pytest.approx(beside.final_kl.tolist(), abs=1e-5)
    assert values["names"][0].startswith("base of")
    shares = [share["patched"] for share in values["changes"]["layers"]]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)


def test_a_snapshot_is_something_to_compare_with(run: Path, capsys: pytest.CaptureFixture[str]):
    snapshot = run / "snapshots" / "base" / "step-00000002"
    assert main(["inspect", str(run), PROMPT, "--stage", "base", "--compare", str(snapshot)]) == 0
    assert "at step 2" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--through", "--view", "patch"], "expected lens, attention, parts, loss, induction"),
        (["--through", "--stage", "sft"], "one checkpoint"),
        (["--compare", "bsae"], "Did you mean base?"),
        (["--compare", "dpo"], "predict the same"),
        (["--stage", "base", "--chat"], "base model has not learnt to chat"),
        (["--view", "compare"], "Name a stage or a model with --compare"),
        (["--view", "soul"], "expected lens, attention, parts, patch"),
    ],
)
def test_mistakes_end_with_one_sentence(words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_long_work_is_told_on_standard_error_alone(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    ticks = iter(range(10_000))
    monkeypatch.setattr(inspect_training_views, "steps_line", partial(steps_line, clock=lambda: 2.0 * next(ticks)))
    assert main(["inspect", str(run), PROMPT, "--through", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["checkpoints"]) == 6
    assert err.splitlines()[0] == "Reading checkpoints  1 of 6  0:10 left"
    assert main(["inspect", str(run), PROMPT, "--compare", "base", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["changes"]["tokens"]
    assert err.splitlines()[0] == "Looking for what changed  1 of 4  0:06 left"
