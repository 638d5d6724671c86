"""How many files, or classes, lie between a command and what it is about: the walks of docs/architecture.md."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import tiny_server
from tiny_run import make_run

import underhood
from tinyrun import TINY
from tinytext import write_notes
from underhood.cli.main import main
from underhood.infer.engine import Engine
from underhood.infer.forward_pass import ForwardPass
from underhood.kernels.cpu_decoder import CpuDecoder
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.web.body import StrictRoute
from underhood.web.registry import ModelRegistry

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


def test_generate_reaches_the_logits_in_at_most_9_files(tmp_path: Path):
    run = make_run(tmp_path / "run")
    with walk_to(Decoder.hidden_states) as files:
        main(["generate", str(run), "the", "--max-tokens", "2"])
    print(*files, sep="\n")
    assert files[0] == "cli/main.py"
    assert files[-1] == "models/decoder.py"
    assert len(files) <= 9, files


def test_checkpoint_becomes_a_model_in_at_most_8_files(tmp_path: Path):
    run = make_run(tmp_path / "run")
    with walk_to(DecoderSpec.build) as files:
        underhood.load(run)
    print(*files, sep="\n")
    assert files[-1] == "models/decoder.py"
    assert len(files) <= 8, files


def test_milestone_is_measured_in_at_most_8_files(tmp_path: Path):
    from underhood.core.trial import Trial

    with walk_to(Trial.measure) as files:
        main(["reproduce", "markov-1913", "--scale", "smoke", "--results", str(tmp_path)])
    print(*files, sep="\n")
    assert files[0] == "cli/main.py"
    assert files[-2:] == ["path/p1913_markov/run.py", "core/trial.py"]
    assert len(files) <= 8, files


def test_chat_request_passes_through_at_most_8_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counts our classes whose methods are on the call stack, from the route on, at three points of a chat request:
    where the route looks up the model, where the engine takes the request, and, in its thread, where logits are
    computed. Two middlewares (`Gate`, `Metered`) and the server are outside the route."""
    classes: list[str] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            owners, frame = [type(args[0])], sys._getframe()
            while frame is not None and StrictRoute not in owners:
                owners.append(type(frame.f_locals.get("self")))
                frame = frame.f_back
            classes.extend(kind.__name__ for kind in owners if kind.__module__.startswith("underhood."))
            return function(*args, **options)

        return call

    for owner, name in (
        (ModelRegistry, "find"),
        (Engine, "submit"),
        (ForwardPass, "__call__"),
        (CpuDecoder, "__call__"),
    ):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    with tiny_server(tmp_path) as live:
        message = {"role": "user", "content": "the"}
        classes.clear()
        answer = live.openai().chat.completions.create(model="tiny", messages=[message], max_tokens=2)  # type: ignore[list-item]
    assert answer.choices
    names = list(dict.fromkeys(classes))
    print(*names, sep="\n")
    assert {"Engine", "ModelRunner", "ForwardPass"} <= {*names}
    assert len(names) <= 8, names
