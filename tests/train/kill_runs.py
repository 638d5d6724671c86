"""Kills training runs and resumes them; a script, so that its children fork from a process that never trained.

``python kill_runs.py FOLDER [ablation]`` prints one JSON object: the digest of the uninterrupted run's weights and, per
case, how the run was killed, from which step it resumed, and the digest it ended with (or the error it met).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_training import digest, train

import underhood.core.checkpoint as checkpoint
import underhood.train.training_state as training_state
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import RunLog
from underhood.train.loop import FitSpec

SPEC = FitSpec(steps=16, save_every=2, keep=2)
RANDOM_KILLS = 20


def child(job: Callable[[], None]) -> int:
    """Forks; the child does the job and leaves without tidying up."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        job()
        code = 0
    except BaseException as error:
        Path(os.environ["KILL_ERROR"]).write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Waits; the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path) -> None:
    log = RunLog(folder / "events.jsonl")
    model, _ = train(folder / "checkpoints", SPEC, log=log)
    (folder / "digest").write_text(digest(model))


def kill_self(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: Any, name: str, number: int, before: Callable[..., None] = kill_self) -> Callable[[], None]:
    """A preparation of the child: call `number` of ``owner.name`` does `before` instead of its work."""

    def prepare() -> None:
        original, calls = getattr(owner, name), [0]

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                before(*args, **kwargs)
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    return prepare


def half_a_file(tensors: Any, path: Path) -> None:
    checkpoint_save(tensors, path)
    os.truncate(path, path.stat().st_size // 2)
    kill_self()


def half_a_folder(path: Path, **kwargs: Any) -> None:
    next(iter(sorted(Path(path).iterdir()))).unlink()
    kill_self()


checkpoint_save = checkpoint.save_file


def deliberate() -> dict[str, Callable[[], None]]:
    """A kill at each kind of moment within a write, on the first write or a later one."""
    cases = {
        "half a model file, first write": at_call(checkpoint, "save_file", 1, half_a_file),
        "half an optimizer file": at_call(checkpoint, "save_file", 6, half_a_file),
        "before the first rename": at_call(os, "rename", 1),
        "before a later rename": at_call(os, "rename", 3),
        "before an old checkpoint loses its name": at_call(os, "rename", 4),
        "within the removal of an old checkpoint": at_call(shutil, "rmtree", 1, half_a_folder),
    }
    # One write syncs state.json, the three files, the manifest, the new folder and the folder around it.
    return cases | {f"sync {number}": at_call(os, "fsync", number) for number in (1, 4, 5, 6, 7, 12, 19)}


def case(folder: Path, kill: Callable[[], int]) -> dict[str, Any]:
    """Kills one run, resumes it, and says what came of it."""
    folder.mkdir()
    os.environ["KILL_ERROR"] = str(folder / "error")
    code = kill()
    try:
        path = newest(folder / "checkpoints")
        step = read_checkpoint(path).step if path else 0
    except Exception as error:
        return {"killed": code == -signal.SIGKILL, "error": str(error)}
    code_again = ended(child(lambda: run(folder)))
    if code_again:
        return {"killed": code == -signal.SIGKILL, "error": (folder / "error").read_text()}
    left = sorted(item.name for item in (folder / "checkpoints").iterdir())
    result = {"killed": code == -signal.SIGKILL, "from": step, "digest": (folder / "digest").read_text(), "left": left}
    shutil.rmtree(folder)
    return result


def careless_write(folder: Path, step: int, tensors: Any, state: Any, *, keep: int) -> Path:
    """How not to write a checkpoint: straight to its final place, the manifest first."""
    final = folder / f"step-{step:08d}"
    final.mkdir(parents=True)
    (final / "manifest.json").write_text("{}")
    for stem, group in tensors.items():
        checkpoint.save_file(group, final / f"{stem}.safetensors")
    return final


def main() -> None:
    root, ablation = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    torch.set_num_threads(1)
    if ablation == "careless":
        training_state.write_checkpoint = careless_write
    if ablation == "forgetful":
        training_state.optimizer_tensors = (
            lambda model, optimizer: {}
        )  # an optimiser whose state is not in the checkpoint

    os.environ["KILL_ERROR"] = str(root / "error")
    # What torch imports and sets up on first use is done before the forks: else each child spends most of its time on
    # it, and a random moment is nearly always one before the first checkpoint.
    train(root / "warm", FitSpec(steps=2, save_every=1))
    started = time.perf_counter()
    (root / "whole").mkdir()
    assert ended(child(lambda: run(root / "whole"))) == 0, (root / "error").read_text()
    duration = time.perf_counter() - started
    result: dict[str, Any] = {"digest": (root / "whole" / "digest").read_text(), "random": [], "deliberate": {}}

    def kill_within(folder: Path, prepare: Callable[[], None]) -> int:
        return ended(child(lambda: (prepare(), run(folder))[0]))

    wanted = {"": 99, "careless": 2, "forgetful": 4}[ablation]
    for number, (name, prepare) in enumerate(list(deliberate().items())[:wanted]):
        folder = root / f"deliberate{number}"
        result["deliberate"][name] = case(folder, lambda f=folder, p=prepare: kill_within(f, p))

    def kill_after(folder: Path, seconds: float) -> int:
        pid = child(lambda: run(folder))
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return ended(pid)

    chance = random.Random(0)
    for number in range(0 if ablation else RANDOM_KILLS):
        seconds = chance.uniform(0, 0.95 * duration)
        while True:
            folder = root / f"random{number}"
            outcome = case(folder, lambda f=folder, s=seconds: kill_after(f, s))
            if outcome["killed"] or "error" in outcome:
                break
            seconds /= 2  # it was done before the kill came: the first run was slow, or this one fast
        result["random"].append(outcome)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
