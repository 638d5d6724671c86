"""Adaptive parallelism: a pass uses all threads, or the calling thread alone while other processes hold the cores.

All threads of a parallel kernel wait for the last one. If another process holds its core, they wait for the time slices
of the scheduler, in each of a hundred kernels per token. The calling thread by itself has about half the speed of two
and waits for nobody. So whichever was faster lately is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from underhood.kernels.jit import thread_limit

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds alone after a slow parallel pass; doubled each time that the next parallel pass is slow again."""

REMEASURE = 5.0
"""Seconds after which the time of a pass by one thread is measured anew: texts grow, and machines change."""


class AdaptiveThreads:
    """Measures passes and limits their threads.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._passes: dict[int, int] = {}
        self._alone: dict[int, tuple[float, float]] = {}  # by batch size: seconds of a pass, and when it was measured
        self._until = self._pause = 0.0

    @contextmanager
    def measured(self, size: int) -> Iterator[bool]:
        """Runs a pass of a batch size with as many threads as are faster; yields whether it is one."""
        start = self._clock()
        alone = self._is_alone(size, start)
        with thread_limit(1 if alone else None):
            yield alone
        end = self._clock()
        count = self._passes[size] = self._passes.get(size, 0) + 1
        if alone and count > 1:  # the first one may have compiled kernels
            self._alone[size] = end - start, end
        elif not alone:
            slow = end - start > self._alone[size][0]
            self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE) if slow else 0.9 * self._pause
            self._until = end + self._pause if slow else 0.0

    def _is_alone(self, size: int, now: float) -> bool:
        return now < self._until or size not in self._alone or now - self._alone[size][1] > REMEASURE
