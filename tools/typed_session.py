"""A session in a terminal: a program runs, lines are typed whenever it asks, and everything on the screen is kept."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

PROMPT = "\n> "
END_OF_INPUT = "\x04"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
PATIENCE = 300.0
"""Seconds without a word after which the session has failed."""


def typed_session(command: str, lines: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Runs `command` in a terminal of 80 columns, types each line at its prompt, and ends the input.

    Raises:
        RuntimeError: the command failed, ended early, or fell silent.
    """
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env={**environment, "TERM": "dumb"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = ""
    try:
        for line in [*lines, END_OF_INPUT]:
            shown += _read(screen, until=PROMPT)
            os.write(screen, (line if line == END_OF_INPUT else f"{line}\n").encode())
        shown += _read(screen)
    except RuntimeError:
        process.kill()
        raise
    finally:
        os.close(screen)
    if process.wait(timeout=PATIENCE):
        raise RuntimeError(f"{command}\n{shown}")
    return "\n".join(line.rstrip() for line in shown.removesuffix("\n").removesuffix("> ").strip("\n").splitlines())


def _read(screen: int, until: str | None = None) -> str:
    """What appears on the screen, up to a prompt or to the end."""
    raw = b""
    while True:
        text = CONTROL.sub("", raw.decode("utf-8", "ignore"))
        if until is not None and text.endswith(until):
            return text
        if not select.select([screen], [], [], PATIENCE)[0]:
            raise RuntimeError(f"nothing more came after\n{text}")
        try:
            piece = os.read(screen, 65536)
        except OSError:  # Linux says so when the program has closed its side
            piece = b""
        if not piece:
            if until is not None:
                raise RuntimeError(f"it ended before it asked:\n{text}")
            return text
        raw += piece
