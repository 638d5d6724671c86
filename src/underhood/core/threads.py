"""Spin limits of the OpenMP threads, set before torch is imported.

An OpenMP thread that waits for the others spins for a while and then sleeps. By default GNU's spins for milliseconds.
That is fastest on an idle machine, but as soon as another process runs, spinning threads hold the very cores that the
awaited ones need: decoding becomes 40 times slower. A short spin keeps the speed and leaves the cores to others.
"""

from __future__ import annotations

import os
import sys

SPIN_LIMITS = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""GNU OpenMP (in torch's Linux wheels): rounds of a loop; Intel's and LLVM's: milliseconds."""


def limit_spinning() -> None:
    """Sets `SPIN_LIMITS` for this process and its children, unless the user has chosen or torch is loaded already."""
    chosen = ("OMP_WAIT_POLICY", *SPIN_LIMITS)
    if "torch" not in sys.modules and not any(name in os.environ for name in chosen):
        os.environ.update(SPIN_LIMITS)
