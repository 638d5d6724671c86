"""The commands of the stages on two processes: ``torchrun -m underhood sft … --parallel fsdp`` and its kin."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tinytext import write_notes
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import read_events
from underhood.infer.load import load

SMALL = shlex.split(
    "--d-model 32 --layers 2 --heads 2 --context-length 96 --batch-size 4 --vocab-size 400 --minutes 0.2 --threads 1 "
    "--dtype float32"
)
STEPS = 4

pytestmark = pytest.mark.slow


def command(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs underhood, on several processes by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "underhood", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def losses(run: Path, stage: str) -> dict[int, float]:
    events = read_events(run / "events.jsonl")
    return {event["step"]: event["loss"] for event in events if (event["kind"], event["stage"]) == ("step", stage)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a base model, made by one process."""
    folder = tmp_path_factory.mktemp("stages")
    notes = write_notes(folder / "notes")
    command(1, "pretrain", str(folder / "base"), "--data", str(notes), "--steps", str(STEPS), *SMALL)
    return folder / "base"


@pytest.fixture(scope="module")
def tuned(base: Path) -> dict[str, Path]:
    """The run fine-tuned and aligned by one process, and by two with each way to share the work."""
    runs = {}
    for name, processes, options in (("one", 1, ()), ("ddp", 2, ()), ("fsdp", 2, ("--parallel", "fsdp"))):
        runs[name] = Path(shutil.copytree(base, base.parent / name))
        for stage in ("sft", "dpo"):
            command(processes, stage, str(runs[name]), "--steps", str(STEPS), *options)
    return runs


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_stage_on_two_processes_has_the_losses_of_one(tuned: dict[str, Path], mode: str, stage: str) -> None:
    expected = losses(tuned["one"], stage)
    assert list(expected) == list(range(1, STEPS + 1))
    assert losses(tuned[mode], stage) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", ["sft", "dpo"])
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_checkpoint_of_two_processes_is_that_of_one_and_answers(tuned: dict[str, Path], mode: str, model: str) -> None:
    paths = [path for name in ("one", mode) if (path := newest(tuned[name] / "checkpoints" / model)) is not None]
    ours, theirs = (read_checkpoint(path).tensors("model") for path in paths)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)
    written = [
        load(tuned[name], model).generate("The old clock", max_tokens=8, temperature=0) for name in ("one", mode)
    ]
    assert written[0] == written[1]


def test_one_process_goes_on_from_two_that_were_sharded(tuned: dict[str, Path]) -> None:
    for name in ("one", "fsdp"):
        command(1, "sft", str(tuned[name]), "--steps", str(STEPS + 2))
    after = {name: losses(tuned[name], "sft") for name in ("one", "fsdp")}
    assert list(after["one"]) == list(range(1, STEPS + 3))
    assert after["fsdp"] == pytest.approx(after["one"], rel=1e-5)
