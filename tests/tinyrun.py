"""One small build that every test shares, made by the command that a user types.

It is made once per test session, whichever of the parallel processes asks first; the others wait for it. Tests must
not write into it: `copy_of_tiny_run` gives a copy to spoil.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

MINUTES = 0.3
"""How long the shared build may take; documentation that says another number is run with this one."""


def underhood(*words: str, cwd: Path, stdin: str = "", timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs the installed command as a user would, with its output captured."""
    command = [str(Path(sys.executable).with_name("underhood")), *words]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a finished build of `MINUTES` minutes on the default data."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    run = shared / "tiny-run"
    with FileLock(shared / "tiny-run.lock"):
        if not (shared / "tiny-run.done").exists():
            done = underhood("build", "--minutes", str(MINUTES), "--out", str(run), cwd=shared)
            assert done.returncode == 0, f"the shared build failed:\n{done.stdout}\n{done.stderr}"
            (shared / "tiny-run.done").touch()
    return run


@pytest.fixture
def copy_of_tiny_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the shared run for this test alone."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))
