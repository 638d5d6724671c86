"""Spin limits of the OpenMP threads, set before torch is imported.

An OpenMP thread that waits for the others spins for a while and then sleeps. By default GNU's spins for milliseconds.
That is fastest on an idle machine, but as soon as another process runs, spinning threads hold the very cores that the
awaited ones need: decoding becomes 40 times slower. A short spin keeps the speed and leaves the cores to others.
"""

from __future__ import annotations

import os
import sys

DECODE_SPINS, TRAIN_SPINS, BUSY_TRAIN_SPINS = "10000", "30000", "2000"
"""GNU OpenMP (in torch's Linux wheels): rounds of a spinning loop. Decoding takes one thread beside a busy neighbour
(`kernels.adaptive_threads`). Training does not, since the number of threads may change its results in the last digits;
its gaps between kernels are longer, and 10,000 rounds cost a small model a tenth of its speed. So it spins long where
it finds the machine idle, and briefly where other programs use it already."""

BUSY_CORES = 0.4
"""Cores in use by others from which a machine counts as busy."""

_LIMITS = {"GOMP_SPINCOUNT": DECODE_SPINS, "KMP_BLOCKTIME": "1"}
"""KMP_BLOCKTIME is for Intel's and LLVM's OpenMP, in milliseconds."""

_CHOSEN = any(name in os.environ for name in ("OMP_WAIT_POLICY", *_LIMITS))


def limit_spinning(*, training: bool = False) -> None:
    """Sets the limits for this process and its children, unless the user has chosen or torch is loaded already.

    Args:
        training: watches the machine for a tenth of a second to see how long to spin.
    """
    if "torch" not in sys.modules and not _CHOSEN:
        os.environ.update(_LIMITS)
        if training:
            os.environ["GOMP_SPINCOUNT"] = TRAIN_SPINS if cores_in_use(0.1) < BUSY_CORES else BUSY_TRAIN_SPINS


def cores_in_use(seconds: float) -> float:
    """How many processor cores all programs together keep busy while this one sleeps."""
    import psutil

    return psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1)
