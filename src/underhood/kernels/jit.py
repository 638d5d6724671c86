"""How functions are compiled, kept on disk and run on threads (by Numba).

`loop` and `in_parts` make what Python calls, `inner` what those call; `together` runs what is made `in_parts`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import torch
from numba import njit
from numba.core import config as _config

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    # Sums may be taken in any order; what is no number stays so, for a model that breaks must be seen to.
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",
}


def loop(function: Callable[P, T]) -> Callable[P, T]:
    """Compiles a function when it is first called; the result is kept on disk, where there is a place for that."""
    return _compiled(function, parallel=False)


def in_parts(function: Callable[P, T]) -> Callable[P, T]:
    """`loop` for a function whose `prange` runs on all threads; see `together`."""
    return _compiled(function, parallel=True)


def inner(function: Callable[P, T]) -> Callable[P, T]:
    """`loop` for what only compiled functions call. One thread runs it, whoever calls."""
    return njit(**_OPTIONS)(function)


def _compiled(function: Callable[P, T], *, parallel: bool) -> Callable[P, T]:
    try:
        made: Any = njit(cache=True, parallel=parallel, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's own can be written to
        return njit(parallel=parallel, **_OPTIONS)(function)
    # Numba would look at the function's own file only, and what it calls may be in another.
    file = made._cache._cache_file
    file._source_stamp = (file._source_stamp, _sources())
    return made


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of all that compiled code is made from."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Pool:
    """What there is to know about Numba's threads, which a forked process has not got."""

    def __init__(self) -> None:
        self.lock, self.begun, self.lost = threading.Lock(), False, False

    def forked(self) -> None:
        self.lock, self.lost = threading.Lock(), self.begun


_pool, _asked = _Pool(), threading.local()
config: Any = _config
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forked)
if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def together(run: Callable[..., None], *arguments: Any) -> None:
    """``run(parts, *arguments)`` of a function made by `in_parts`, with as many parts as torch would use threads.

    On Linux with an OpenMP library they are the same threads, for Numba's calls go to the one that torch has loaded:
    neither waits for a core which the other's threads hold while they wait for more to do.

    Raises:
        RuntimeError: in a process that was forked after another such call, where the threads are missing.
    """
    if _pool.lost:
        raise RuntimeError("a forked process has none of the threads that models need: start it with 'spawn'")
    wanted = torch.get_num_threads()
    threads = min(wanted, config.NUMBA_NUM_THREADS)
    with _pool.lock:  # not every one of Numba's pools takes work from several threads
        if getattr(_asked, "threads", 0) != threads:  # each thread of ours asks for itself
            numba.set_num_threads(threads)
            torch.set_num_threads(wanted)  # the first call has set the number of all cores for torch as well
            _asked.threads, _pool.begun = threads, True
        run(threads, *arguments)
