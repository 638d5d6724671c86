"""A training process that is killed at any moment, writes included, and started again loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system (fork and SIGKILL)"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a kill is not a power cut, and thousands of syncs are free there."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        yield Path(name)


def outcomes(folder: Path, *ablation: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_runs.py"), str(folder), *ablation], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_killed_run_resumes_from_the_newest_whole_checkpoint_and_ends_bit_identical(folder: Path):
    result = outcomes(folder)
    cases = {f"random {i}": case for i, case in enumerate(result["random"])} | result["deliberate"]
    assert len(result["random"]) == 20
    assert len(cases) == 33
    for name, case in cases.items():
        assert case["killed"], name
        assert case.get("error") is None, (name, case["error"])
        assert case["digest"] == result["digest"], name
        assert case["left"] == ["step-00000014", "step-00000016"], (name, "something half-made was left behind")
    resumed = {name: case["from"] for name, case in cases.items()}
    assert resumed["half a model file, first write"] == resumed["before the first rename"] == resumed["sync 6"] == 0
    assert resumed["sync 7"] == 2, "after the rename the checkpoint counts"
    assert resumed["before a later rename"] == 4
    assert resumed["before an old checkpoint loses its name"] == 6
    assert resumed["within the removal of an old checkpoint"] == 6
    assert len({case["from"] for case in result["random"]}) > 3, "the random kills hit different moments"


@pytest.mark.parametrize("ablation", ["careless", "forgetful"])
def test_killed_runs_differ_without_atomic_writes_or_without_the_optimizer_state(folder: Path, ablation: str):
    result = outcomes(folder, ablation)
    for name, case in result["deliberate"].items():
        survived = "error" not in case and case["digest"] == result["digest"]
        # A forgetful optimizer is harmless only where the run begins again from nothing.
        assert survived == (ablation == "forgetful" and case.get("from") == 0), name
