"""One writer per folder: real processes, killed ones, forked ones, and file systems without flock."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from underhood.core import run_lock
from underhood.core.errors import UserError
from underhood.core.run_lock import LOCK, RunLock, holder_of, is_stale

HOLD = """
import sys
from pathlib import Path
from underhood.core.run_lock import RunLock
lock = RunLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder's lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_second_process_is_told_who_holds_the_lock(tmp_path: Path):
    with other_process(tmp_path) as process:
        message = rf"writing into .*process {process.pid} on {socket.gethostname()}, since \d{{4}}-.*: -c "
        with pytest.raises(UserError, match=message):
            RunLock.acquire(tmp_path)
        process.communicate("")
        assert process.returncode == 0
        assert not (tmp_path / LOCK).exists()
    RunLock.acquire(tmp_path).release()


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path):
    with other_process(tmp_path) as process:
        process.kill()
        process.wait()
        assert holder_of(tmp_path / LOCK)["pid"] == process.pid  # it is left behind …
        assert is_stale(holder_of(tmp_path / LOCK))
        lock = RunLock.acquire(tmp_path)  # … and in nobody's way
        assert holder_of(tmp_path / LOCK)["pid"] == os.getpid()
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_lock_is_shared_within_a_process_and_given_back_when_forgotten(tmp_path: Path):
    first, second = RunLock.acquire(tmp_path), RunLock.acquire(tmp_path)
    assert first is second
    del first
    assert (tmp_path / LOCK).exists()
    del second
    assert not (tmp_path / LOCK).exists()
    lock = RunLock.acquire(tmp_path)
    lock.release()
    lock.release()
    again = RunLock.acquire(tmp_path)
    assert again is not lock
    assert (tmp_path / LOCK).exists()
    again.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_does_not_give_its_parents_lock_back(tmp_path: Path):
    lock = RunLock.acquire(tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / LOCK).exists()
    lock.release()


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize(
    ("changes", "free"),
    [({}, False), ({"pid": 2**22 + 1}, True), ({"boot": "before"}, True), ({"host": "elsewhere"}, False), (None, True)],
    ids=["alive", "dead", "before the reboot", "other machine", "number used again"],
)
def test_without_flock_the_file_is_the_lock(tmp_path: Path, changes: dict[str, object] | None, free: bool):
    lock = RunLock.acquire(tmp_path)
    holder = holder_of(tmp_path / LOCK)
    lock.release()
    assert not (tmp_path / LOCK).exists()
    # Our parent is alive, and was when the lock was taken; in the last case it began later.
    alive = holder | {"pid": os.getppid()} | ({"since": 0} if changes is None else changes)
    (tmp_path / LOCK).write_text(json.dumps(alive))
    if free:
        RunLock.acquire(tmp_path).release()
        assert not (tmp_path / LOCK).exists()
    else:
        with pytest.raises(UserError, match=rf"process {alive['pid']} on {alive['host']}"):
            RunLock.acquire(tmp_path)
        assert (tmp_path / LOCK).exists()


@pytest.mark.usefixtures("without_flock")
def test_without_flock_two_in_one_process_still_share(tmp_path: Path):
    first = RunLock.acquire(tmp_path)
    assert RunLock.acquire(tmp_path) is first
    first.release()


def test_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        RunLock.acquire(tmp_path / "file")
