"""How many files, or classes, lie between a command and what it is about: the walks of docs/architecture.md."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import underhood
from tinyrun import TINY
from tinytext import write_notes
from underhood.cli.main import main

SOURCES = Path(underhood.__file__).parent


class _Reached(Exception):
    """Ends a walk where it arrives."""


def files_on_the_stack() -> list[str]:
    """Our source files on the call stack, each once, the outermost first."""
    files: list[str] = []
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(SOURCES):
            files.append(str(file.relative_to(SOURCES)))
        frame = frame.f_back
    return list(dict.fromkeys(reversed(files)))


@contextmanager
def walk_to(function: Callable[..., Any]) -> Iterator[list[str]]:
    """Calls in the block stop at the first call of `function`; gives the files on the stack then, its own last."""
    files, code = list[str](), inspect.unwrap(function).__code__  # tests check shapes by wrappers

    def watch(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code is code:
            sys.setprofile(None)
            files.extend(files_on_the_stack())
            raise _Reached

    try:
        sys.setprofile(watch)
        yield files
    except _Reached:
        pass
    finally:
        sys.setprofile(None)
    assert files, f"{function.__qualname__} was never called"


@pytest.mark.usefixtures("quick_builds")
def test_pretrain_reaches_the_loss_in_at_most_8_files(tmp_path: Path):
    from underhood.train.loss import next_token_loss_sum

    write_notes(tmp_path / "notes")
    words = ["pretrain", str(tmp_path / "run"), "--data", str(tmp_path / "notes"), *TINY]
    with walk_to(next_token_loss_sum) as files:
        main(words)
    print(*files, sep="\n")
    assert files[0] == "cli/main.py"
    assert files[-1] == "train/loss.py"
    assert len(files) <= 8, files
