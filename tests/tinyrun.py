"""One small build that every test shares, made by the command that a user types.

It is made once per test session, whichever of the parallel processes asks first; the others wait for it. Tests must
not write into it: `copy_of_tiny_run` gives a copy to spoil.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tinytext import write_notes

TINY = tuple(
    shlex.split(
        "--minutes 0.3 --d-model 32 --layers 1 --heads 2 --context-length 96 --batch-size 2 --vocab-size 400 "
        "--threads 1 --pretrain-steps 4 --sft-steps 3 --dpo-steps 2"
    )
)
"""Options of a build that takes seconds; it learns nothing and writes everything."""


def underhood(*words: str, cwd: Path, stdin: str = "", timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs the installed command as a user would, with its output captured."""
    command = [str(Path(sys.executable).with_name("underhood")), *words]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished build with the options `TINY` on a small text."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    run = shared / "tiny-run"
    with FileLock(shared / "tiny-run.lock"):
        if not (shared / "tiny-run.done").exists():
            write_notes(shared / "notes")
            done = underhood("build", "--data", "notes", "--out", str(run), *TINY, cwd=shared)
            assert done.returncode == 0, f"the shared build failed:\n{done.stdout}\n{done.stderr}"
            (shared / "tiny-run.done").write_text(done.stdout, encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def quick_builds() -> Iterator[None]:
    """For builds in this process: the machine is not timed, and few items are measured.

    With the steps and sizes of `TINY`, the plan is then the same every time.
    """
    from underhood.core.device import Device
    from underhood.recipes.evaluation import EvalSize
    from underhood.train.hardware import Hardware

    hardware = Hardware(device=Device(name="cpu"), flops=1e11, read_bytes=1e10)
    size = EvalSize(questions=8, pairs=6, answers=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underhood.recipes.preparation.measure_hardware", lambda name, dtype=None: hardware)
        patch.setattr("underhood.train.plan.measure_speed", lambda *_: 5000.0)
        patch.setattr(EvalSize, "for_minutes", lambda minutes: size)
        yield


@pytest.fixture
def copy_of_tiny_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the shared run for this test alone."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))
