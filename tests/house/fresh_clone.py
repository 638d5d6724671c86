"""A fresh clone of this repository whose installation is done: for tests that do what README says, word for word.

Its `.venv/bin` holds scripts that call the programs of this environment with the clone's own sources, and the stamps by
which the Makefile knows that nothing is to be installed. No command may need the network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from needs import REPOSITORY

PROGRAMS = ("python", "underhood", "ruff", "basedpyright", "lint-imports")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.egg-info", "build", "dist")
TYPED = "What does os.path.join do?\n"
"""What is typed into commands that read from the terminal; then the input ends."""


def fresh_clone(folder: Path) -> Path:
    """Copies what a clone would have into `folder` and installs it there without a network."""
    shutil.copytree(REPOSITORY, folder, ignore=LEFT_OUT)
    real = Path(sys.executable).parent
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in PROGRAMS:
        script = programs / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "src"} exec {real / name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    (folder / ".venv" / "lib").symlink_to(real.parent / "lib")  # where basedpyright looks up types
    for stamp in (".for-run", ".for-test"):
        (folder / ".venv" / stamp).touch()
    return folder


def environment(clone: Path, **variables: str) -> dict[str, str]:
    """What ``. .venv/bin/activate`` gives, with our own variables."""
    path = os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])
    return os.environ | {"PATH": path, "NO_COLOR": "1"} | variables


def follow(command: str, clone: Path, **variables: str) -> str:
    """Runs a command in the clone and returns what it printed; it must end well within ten minutes."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=clone,
        env=environment(clone, **variables),
        input=TYPED,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start_and_stop(command: str, clone: Path) -> None:
    """Starts a server, waits until it names its page, and stops it as Ctrl-C would."""
    server = subprocess.Popen(
        command.split(), cwd=clone, env=environment(clone), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert server.stdout is not None
    printed = [""]
    while "Page: http" not in printed[-1]:
        printed.append(server.stdout.readline())
        assert printed[-1], f"{command} ended:\n{''.join(printed)}"
    server.send_signal(signal.SIGINT)
    output, _ = server.communicate(timeout=60)
    assert server.returncode == 0, output
