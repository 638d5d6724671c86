"""How much memory the machine can spare, and how many blocks of cache that makes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from underhood.core.errors import UserError
from underhood.infer.store import Store

SHARE = 0.5
"""Of the memory that is free at the start, what the cache may take at most: passes need room as well."""

ROUNDS = 2
"""A cache larger than this many times all that can run at once would only keep ever older prompts."""


def spare_memory(device: torch.device) -> int:
    """Bytes free on the device; for the CPU within the limit of the container, if there is one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def count_blocks(
    heads: Sequence[tuple[int, int]],
    block: int,
    *,
    most_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    quantized: bool,
    cache_bytes: int | None,
) -> int:
    """Blocks of `block` tokens for layers of (G, K) `heads`.

    Args:
        most_tokens: all that can be running at once.
        cache_bytes: memory for them; None takes what the machine can spare and the texts can use.

    Raises:
        UserError: not even one block fits.
    """
    size = block * sum(2 * Store.bytes_per_slot(groups, width, dtype, quantized) for groups, width in heads)
    if cache_bytes is None:
        wanted = ROUNDS * -(-most_tokens // block)
        count = min(wanted, int(SHARE * spare_memory(device)) // size)
    else:
        count = cache_bytes // size
    if count < 1:
        raise UserError(
            "there is too little memory for the cache",
            expected=f"at least {size:,} bytes for {block} tokens",
            got=f"{cache_bytes:,} bytes" if cache_bytes is not None else "less free",
        )
    return count
