"""Training on several processes: the same losses as one, checkpoints for any number, and a clear end when one dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_runs import STEPS, train_in, uneven_batch

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.errors import UserError
from underhood.core.runlog import read_events

HERE = Path(__file__).parent


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def losses(folder: Path, after: int = 0) -> dict[int, float]:
    steps = [event for event in read_events(folder / "events.jsonl") if event["kind"] == "step"]
    return {event["step"]: event["loss"] for event in steps if event["step"] > after}


def copy_checkpoint(run: Path, to: Path) -> None:
    """Takes over the checkpoint of step 2."""
    shutil.copytree(run / "checkpoints" / "step-00000002", to / "checkpoints" / "step-00000002")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, two replicated, two sharded, and two of each kind going on from a checkpoint of one process."""
    folder = tmp_path_factory.mktemp("distributed")
    train_in(folder / "one")
    for mode in ("ddp", "fsdp"):
        copy_checkpoint(folder / "one", folder / f"one-then-{mode}")
    jobs = [f"{mode}:{name}" for mode in ("ddp", "fsdp") for name in (mode, f"one-then-{mode}")]
    done = torchrun(2, str(HERE / "distributed_runs.py"), str(folder), *jobs)
    assert done.returncode == 0, done.stderr
    return folder


def test_uneven_batches_are_uneven():
    counts = [uneven_batch(0).shard(rank, 2).target_count for rank in (0, 1)]
    assert sum(counts) == uneven_batch(0).target_count
    assert counts[0] != counts[1]


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_of_one(runs: Path, mode: str):
    expected = losses(runs / "one")
    assert list(expected) == list(range(1, STEPS + 1))
    assert losses(runs / mode) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_processes_looks_as_that_of_one(runs: Path, mode: str):
    paths = {name: runs / name / "checkpoints" / f"step-{STEPS:08d}" for name in ("one", mode)}
    files = [{file.name for file in path.iterdir()} for path in paths.values()]
    assert files[0] == files[1] == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    ours, theirs = (read_checkpoint(path) for path in paths.values())
    for group in ("model", "optimizer"):
        mine, other = ours.tensors(group), theirs.tensors(group)
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=2e-5)
    assert ours.state["tokens"] == theirs.state["tokens"]


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_go_on_from_a_checkpoint_of_one(runs: Path, mode: str):
    assert losses(runs / f"one-then-{mode}") == pytest.approx(losses(runs / "one", after=2), rel=1e-6)


def test_one_process_and_three_go_on_from_a_checkpoint_of_two(runs: Path, tmp_path: Path):
    names = ("ddp-then-one", "fsdp-then-one", "ddp-then-three", "fsdp-then-three")
    for name in names:
        copy_checkpoint(runs / name.partition("-")[0], tmp_path / name)
    done = torchrun(
        3,
        str(HERE / "distributed_runs.py"),
        str(tmp_path),
        *(f"{mode}:{mode}-then-three" for mode in ("ddp", "fsdp")),
    )
    assert done.returncode == 0, done.stderr
    for name in names[:2]:
        train_in(tmp_path / name)
    for name in names:
        assert losses(tmp_path / name) == pytest.approx(losses(runs / "one", after=2), rel=1e-6), name


def test_a_process_that_dies_ends_the_job_with_a_line_and_an_intact_checkpoint(runs: Path, tmp_path: Path):
    done = torchrun(2, str(HERE / "distributed_runs.py"), str(tmp_path), "dies:run")
    assert done.returncode != 0
    last = newest(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "step-00000004"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert lines, done.stderr
    assert "another process of this job has died" in lines[0]
    assert "step-00000004 is intact" in lines[0]
    train_in(tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(runs / "one"), rel=1e-6)


def test_a_batch_with_fewer_rows_than_processes_is_refused():
    with pytest.raises(UserError, match="too small to divide; expected at least 5 rows"):
        uneven_batch(0).shard(0, 5)
