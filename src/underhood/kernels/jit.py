"""Just-in-time compilation of kernels by Numba: compiled once, cached on disk, run on threads.

`kernel` and `parallel_kernel` make what Python calls, `inline_kernel` what those call; `run_parallel` runs a parallel
kernel. Where Numba is missing, kernels are never called: whoever has one to call asks `runs_compiled` first.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from underhood.core.user_folder import user_cache

try:
    numba: Any = importlib.import_module("numba")
    ir: Any = importlib.import_module("llvmlite.ir")
    cgutils: Any = importlib.import_module("numba.core.cgutils")
    MISSING = ""
except (ImportError, OSError) as _error:  # not installed, or not for this Python, NumPy or system
    numba = ir = cgutils = None
    MISSING = str(_error)

HAS_NUMBA = not MISSING
config: Any = numba.config if HAS_NUMBA else None
types: Any = numba.types if HAS_NUMBA else None
prange: Any = numba.prange if HAS_NUMBA else range
P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    # Sums may be reordered. NaN and infinity keep their meaning, so that a broken model shows.
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",
}


class _Deferral:
    """Whether kernels wait; see `defer_compiling`."""

    active = False


def defer_compiling() -> bool:
    """Where no kernel is cached yet, goes on without kernels until `end_deferral`: a first token needs no compiling.

    Returns:
        Whether that is the case.
    """
    _Deferral.active = HAS_NUMBA and not any(_folder().rglob("*.nbi"))
    return _Deferral.active


def end_deferral() -> None:
    """From now on kernels are compiled when they are called."""
    _Deferral.active = False


def uses_kernels() -> bool:
    """Whether kernels can be called: Numba is installed, and nothing waits."""
    return HAS_NUMBA and not _Deferral.active


def runs_compiled(x: Tensor) -> bool:
    """Whether compiled kernels can take a tensor: float32 on a CPU, without gradients, and `uses_kernels`."""
    return uses_kernels() and x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad


@lru_cache(maxsize=1)
def warn_without_numba() -> None:
    """Says once per process that generation is slower without Numba, and how to mend that."""
    if not HAS_NUMBA:
        warnings.warn(
            f"Numba cannot be imported ({MISSING}), so generation runs without compiled kernels: slower, with the same "
            f"results. To mend it: {Path(sys.executable).name} -m pip install --upgrade numba llvmlite",
            RuntimeWarning,
            stacklevel=3,
        )


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compiles a function when it is first called, and caches the code on disk where that is possible."""
    return _compiled(function, parallel=False)


def parallel_kernel(function: Callable[P, T]) -> Callable[P, T]:
    """`kernel` for a function whose `prange` runs on all threads; call it by `run_parallel`."""
    return _compiled(function, parallel=True)


def inline_kernel(function: Callable[P, T]) -> Callable[P, T]:
    """A function that only kernels call, on the thread of its caller."""
    return numba.njit(**_OPTIONS)(function) if HAS_NUMBA else function


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that emits its own LLVM code; kernels call it without the first of its arguments."""
    return numba.extending.intrinsic(prefer_literal=True)(function) if HAS_NUMBA else function


def overload(*arguments: Any, **options: Any) -> Any:
    """`numba.extending.overload`; without Numba, a decorator that does nothing."""
    return numba.extending.overload(*arguments, **options) if HAS_NUMBA else lambda function: function


def _compiled(function: Callable[P, T], *, parallel: bool) -> Callable[P, T]:
    if not HAS_NUMBA:
        return function
    with _cache_folder():
        try:
            return numba.njit(cache=True, parallel=parallel, **_OPTIONS)(function)
        except RuntimeError:  # no folder can be written to
            return numba.njit(parallel=parallel, **_OPTIONS)(function)


def target_features() -> list[str]:
    """The processor features that Numba compiles for, as LLVM names them."""
    if not HAS_NUMBA:
        return []
    from numba.core.codegen import get_host_cpu_features

    return (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")


@contextmanager
def _cache_folder() -> Iterator[None]:
    """Has Numba cache code in a folder named for all sources of the kernels.

    By itself it looks at the file of the compiled function only, and a change in a file that this one calls would go
    unnoticed.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _folder() -> Path:
    return Path(config.CACHE_DIR or user_cache(), f"kernels-{_sources()}")


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of all sources that kernels are compiled from."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _ThreadPool:
    """The state of Numba's threads, which a forked process does not inherit."""

    def __init__(self) -> None:
        self.lock, self.started, self.lost = threading.Lock(), False, False

    def forked(self) -> None:
        self.lock, self.lost = threading.Lock(), self.started


_pool, _of_thread = _ThreadPool(), threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forked)
if HAS_NUMBA and "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Lets `run_parallel` use at most so many threads when this thread calls it; None for no limit."""
    before = getattr(_of_thread, "limit", None)
    _of_thread.limit = threads
    try:
        yield
    finally:
        _of_thread.limit = before


def run_parallel(run: Callable[..., None], *arguments: Any) -> None:
    """``run(parts, *arguments)`` of a `parallel_kernel`, with as many parts as torch would use threads.

    On Linux with an OpenMP library they are the same threads, because Numba's calls go to the one that torch has
    loaded. So neither waits for a core that the other's spinning threads hold.

    Raises:
        RuntimeError: in a process that was forked after another such call, where the threads are missing.
    """
    if _pool.lost:
        raise RuntimeError("a forked process has none of the threads that models need: start it with 'spawn'")
    wanted = torch.get_num_threads()
    threads = min(wanted, config.NUMBA_NUM_THREADS, getattr(_of_thread, "limit", None) or wanted)
    with _pool.lock:  # not every one of Numba's pools takes work from several threads
        if getattr(_of_thread, "threads", 0) != threads:  # each calling thread has a number of its own
            numba.set_num_threads(threads)
            torch.set_num_threads(wanted)  # Numba's first call has set the number of all cores for torch as well
            _of_thread.threads, _pool.started = threads, True
        run(threads, *arguments)
