"""A limit that the operating system itself enforces, for root too: files beyond a size are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Within, no file of this process can grow beyond `size` bytes; writing fails as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="needs a POSIX system (limits on file sizes)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
