"""Spin limits of the OpenMP threads, set before torch is imported.

An OpenMP thread that waits for the others spins for a while and then sleeps. By default GNU's spins for milliseconds.
That is fastest on an idle machine, but as soon as another process runs, spinning threads hold the very cores that the
awaited ones need: decoding becomes 40 times slower. A short spin keeps the speed and leaves the cores to others.
"""

from __future__ import annotations

import os
import sys

DECODE_SPINS, TRAIN_SPINS = "10000", "2000"
"""GNU OpenMP (in torch's Linux wheels): rounds of a spinning loop. Decoding has short kernels with short gaps between
them, and takes one thread beside a busy neighbour (`kernels.adaptive_threads`); training has neither."""

_LIMITS = {"GOMP_SPINCOUNT": DECODE_SPINS, "KMP_BLOCKTIME": "1"}
"""KMP_BLOCKTIME is for Intel's and LLVM's OpenMP, in milliseconds."""

_CHOSEN = any(name in os.environ for name in ("OMP_WAIT_POLICY", *_LIMITS))


def limit_spinning(*, training: bool = False) -> None:
    """Sets the limits for this process and its children, unless the user has chosen or torch is loaded already."""
    if "torch" not in sys.modules and not _CHOSEN:
        os.environ.update(_LIMITS | ({"GOMP_SPINCOUNT": TRAIN_SPINS} if training else {}))
