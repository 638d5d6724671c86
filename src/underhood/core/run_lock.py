"""Advisory file lock: one writer at a time in a run's folder.

The lock is the operating system's (`flock`) on a file that says who holds it. It ends with its process, however that
ends, so a lock that a killed process or a reboot left behind is free: only its file remains, and the next writer takes
it over. Linux carries `flock` over NFS (as a byte-range lock on the server) and drops it when the client is gone.

Where a file system or a platform has no `flock`, the file alone is the lock: it is made with `O_EXCL`, and it is stale
if its process is dead or its machine has been started again since. A lock of another machine is then never stale.

Readers take no lock: files are replaced in one move, so they see the old or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from underhood.core.errors import UserError
from underhood.core.files import storage_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "run.lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_BUSY = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class RunLock:
    """The right to write, held until it is released or forgotten. Made by `acquire`.

    Within one process it is shared: whoever asks again gets the same lock.
    """

    def __init__(self, file: Path, handle: int):
        self.file = file
        self._release = weakref.finalize(self, _release, file, handle, os.getpid())

    @classmethod
    def acquire(cls, folder: Path, name: str = LOCK) -> "RunLock":
        """Takes the lock of a folder that exists.

        Args:
            name: of the lock's file.

        Raises:
            UserError: another process holds it (who, where, since when), or the folder can't be written.
        """
        file = folder.absolute() / name
        held = _HELD.get((str(file), os.getpid()))
        if held is not None and held._release.alive:
            return held
        with storage_errors(file, "Choose a folder that can be written"):
            lock = cls(file, _take(file))
        _HELD[str(file), os.getpid()] = lock
        return lock

    def release(self) -> None:
        """Gives the lock back; nothing happens the second time."""
        self._release()


_HELD: "weakref.WeakValueDictionary[tuple[str, int], RunLock]" = weakref.WeakValueDictionary()


def holder_of(file: Path) -> dict[str, Any]:
    """What a lock's file says: pid, host, boot, command, since (Unix seconds); empty if it says nothing."""
    try:
        holder = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def is_stale(holder: dict[str, Any]) -> bool:
    """Whether the process is known to be gone: dead on this machine, or from before its last start."""
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("boot") != _boot():
        return True
    pid, since = holder.get("pid"), holder.get("since")
    try:
        # A process that began after the lock was taken has only inherited the number.
        return psutil.Process(pid).create_time() > float(since or 0) + 1 or not psutil.pid_exists(int(pid or 0))
    except (psutil.Error, TypeError, ValueError):
        return True


def _take(file: Path) -> int:
    """An open handle of the lock's file, which is ours now."""
    for _ in range(100):
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is None:
                raise OSError(errno.ENOTSUP, "no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _BUSY:
                raise _busy(file) from None
            if error.errno not in _UNSUPPORTED:
                raise
            return _take_exclusively(file)
        if _is_same(handle, file):
            _sign(handle)
            return handle
        os.close(handle)  # its last holder removed it between our opening and locking
    raise _busy(file)


def _take_exclusively(file: Path) -> int:
    for _ in range(100):
        if file.exists() and file.stat().st_size == 0:
            file.unlink(missing_ok=True)  # made by the attempt with flock
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            if not is_stale(holder_of(file)):
                raise _busy(file) from None
            file.unlink(missing_ok=True)
            continue
        _sign(handle)
        return handle
    raise _busy(file)


def _sign(handle: int) -> None:
    """Writes who holds the lock into its file."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "command": command}
    text = json.dumps(holder | {"since": round(time.time())}) + "\n"
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode("utf-8"), 0) if hasattr(os, "pwrite") else os.write(handle, text.encode("utf-8"))


def _release(file: Path, handle: int, owner: int) -> None:
    if os.getpid() != owner:  # a forked child: the lock is its parent's
        return
    with suppress(OSError):
        if _is_same(handle, file):
            file.unlink()
    with suppress(OSError):
        os.close(handle)


def _is_same(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time() / 60))


def _busy(file: Path) -> UserError:
    holder = holder_of(file)
    what = f"another process is writing into {file.parent if file.name == LOCK else file.name[1:-5]}"
    if not holder:
        return UserError(what, fix="Wait for it, or stop it")
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since")))
    who = f"process {holder.get('pid')} on {holder.get('host')}, since {since}: {holder.get('command')}"
    return UserError(what, got=who, fix="Wait for it or stop it; reading (chat, report, serve) works meanwhile")
