"""A build that is stopped anywhere goes on to the same end, bit for bit; a finished one says everything."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tinyrun import TINY
from tinytext import write_notes
from underhood.cli.main import main
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import RunLog, read_events
from underhood.recipes.spec import BuildSpec

MODELS = ["base", "sft", "dpo"]

pytestmark = pytest.mark.usefixtures("quick_builds")


@pytest.fixture(scope="module")
def folder(quick_builds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("builds")
    write_notes(folder / "notes")
    return folder


def build(folder: Path, out: str, *words: str) -> int:
    here = Path.cwd()
    os.chdir(folder)
    try:
        return main(["build", "--out", out, *words])
    finally:
        os.chdir(here)


def tensors(run: Path, stage: str) -> dict[str, torch.Tensor]:
    path = newest(run / "checkpoints" / stage)
    assert path is not None
    return read_checkpoint(path).tensors("model")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The build that nobody interrupts."""
    assert build(folder, "whole", "--data", "notes", *TINY) == 0
    return folder / "whole"


def stop_at(monkeypatch: pytest.MonkeyPatch, stage: str, kind: str, step: int | None) -> None:
    """The keyboard's Ctrl-C at the moment when the log gets a certain event."""
    original = RunLog.event

    def event(self: RunLog, *words: str, **fields: Any) -> dict[str, Any]:
        record = original(self, *words, **fields)
        if words == (stage, kind) and fields.get("step") == step:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    monkeypatch.setattr(RunLog, "event", event)


@pytest.fixture(autouse=True)
def _keyboard_is_heard() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


MOMENTS = [
    ("data", "start", None),
    ("tokenizer", "end", None),
    ("plan", "start", None),
    ("pretrain", "start", None),
    ("pretrain", "step", 2),
    ("sft", "step", 3),
    ("dpo", "step", 1),
    ("eval", "start", None),
]


IN_FAST_TIER = (("pretrain", "step", 2), ("sft", "step", 3))
"""Moments that the fast tier tries; the slow one tries the others."""


@pytest.mark.parametrize(
    ("stage", "kind", "step"),
    [moment if moment in IN_FAST_TIER else pytest.param(*moment, marks=pytest.mark.slow) for moment in MOMENTS],
    ids=lambda value: str(value),
)
def test_build_stopped_by_ctrl_c_resumes_to_the_same_weights(
    stage: str, kind: str, step: int | None, whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    out = f"stopped-{stage}-{kind}"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, stage, kind, step)
        assert build(folder, out, "--data", "notes", *TINY) == 130
    output = capsys.readouterr().err.splitlines()
    assert output[0].startswith("Stopped")
    assert output[1] == f"Go on with: underhood build --out {out} --resume"
    assert len(output) == 2
    assert not (folder / out / "summary.json").exists()
    assert build(folder, out, "--resume") == 0
    for model in MODELS:
        expected, actual = tensors(whole, model), tensors(folder / out, model)
        assert expected.keys() == actual.keys()
        assert all(torch.equal(expected[name], actual[name]) for name in expected), model
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (folder / out, whole))
    assert ours["results"] == theirs["results"]
    assert ours["samples"] == theirs["samples"]
    assert ours["command"].replace(out, "whole") == theirs["command"]


def test_build_with_another_seed_has_other_weights(whole: Path, folder: Path):
    """The ablation of the test above: equality is not for free."""
    assert build(folder, "seeded", "--data", "notes", *TINY, "--seed", "1") == 0
    expected, actual = tensors(whole, "base"), tensors(folder / "seeded", "base")
    assert not torch.equal(expected["embed.weight"], actual["embed.weight"])


def test_finished_build_resumed_does_nothing_again(whole: Path, folder: Path):
    before = sum(event["kind"] in ("step", "eval") for event in read_events(whole / "events.jsonl"))
    assert build(folder, "whole", "--resume") == 0
    assert sum(event["kind"] in ("step", "eval") for event in read_events(whole / "events.jsonl")) == before


def options_of_the_run() -> list[str]:
    """What was typed, in the order of the settings."""
    given = ("--data", "notes", *TINY)
    pairs = dict(zip(given[::2], given[1::2], strict=True))
    order = ["--" + name.replace("_", "-") for name in BuildSpec().flat()]
    return [word for flag in order if flag in pairs for word in (flag, pairs[flag])]


def test_summary_says_everything(whole: Path):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary.keys() >= {
        "underhood",
        "created",
        "commit",
        "command",
        "minutes",
        "seed",
        "versions",
        "machine",
        "seconds",
        "peak_memory_gb",
        "parameters",
        "spec",
        "corpus",
        "tokenizer",
        "plan",
        "stages",
        "results",
        "samples",
    }
    assert summary["command"] == shlex.join(["underhood", "build", *options_of_the_run(), "--out", "whole"])
    assert summary["machine"].keys() >= {
        "system",
        "cpu",
        "cores",
        "memory_gb",
        "device",
        "dtype",
        "peak_gflops",
        "read_gb_per_s",
    }
    corpus = summary["corpus"]
    assert corpus.keys() >= {"name", "digest", "facts", "documents", "bytes", "kept", "dropped", "train", "held_out"}
    for portion in ("train", "held_out"):
        assert corpus[portion].keys() == {"documents", "bytes", "tokens"}
        assert corpus[portion]["tokens"] > 0
    assert corpus["train"]["documents"] + corpus["held_out"]["documents"] == corpus["kept"]
    assert summary["tokenizer"].keys() >= {"vocab_size", "merges", "bytes_per_token", "sample"}
    assert bytes.fromhex("".join(piece for _, piece in summary["tokenizer"]["sample"])).decode()
    assert summary["plan"]["stages"].keys() == {"pretrain", "sft", "dpo"}
    for portion in summary["plan"]["stages"].values():
        assert portion.keys() >= {"steps", "tokens", "batch_size", "context_length", "seconds"}
    names = [stage["name"] for stage in summary["stages"]]
    assert names == ["data", "tokenizer", "plan", "pretrain", "sft", "dpo", "eval", "report"]
    assert all(stage["seconds"] >= 0 for stage in summary["stages"])
    results = summary["results"]
    assert [stage["stage"] for stage in results["stages"]] == MODELS
    assert {baseline["name"] for baseline in results["baselines"]} >= {"gzip", "bz2", "xz"}
    assert summary["samples"]
    for sample in summary["samples"]:
        assert sample.keys() == {"prompt", "kind", "expected", "answers"}
        grounded = sample["kind"].startswith("passages-")  # the base model has not learnt to read them
        assert sample["answers"].keys() == set(MODELS) - ({"base"} if grounded else set())


def test_build_leaves_the_files_it_promises(whole: Path):
    there = {str(file.relative_to(whole)) for file in whole.rglob("*")}
    assert there >= {"run.toml", "events.jsonl", "tokenizer.json", "summary.json", "report.html", "data/train"}
    assert there >= {f"checkpoints/{stage}" for stage in MODELS}
    assert not [name for name in there if ".making" in name]
