"""Memory budget of the KV cache: the memory that the machine can spare, as a number of blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.core.state import StateSpec
from underhood.infer.cache import device_of, dtype_of, states_of
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.kv_storage import KVStorage

SHARE = 0.5
"""Of the memory that is free at the start, what the cache may take at most: passes need room as well."""

ROUNDS = 2
"""A cache larger than this many times all that can run at once would only keep ever older prompts."""


UNLIMITED = 4096
"""Tokens per text that a cache has room for where the model has no longest context."""


def spare_memory(device: torch.device) -> int:
    """Bytes free on the device; for the CPU within the limit of the container, if there is one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def count_blocks(model: LanguageModel, spec: EngineSpec) -> int:
    """Blocks of a model's cache: what `spec` gives it room for, or the texts can use and the machine can spare.

    Raises:
        UserError: not even one block fits.
    """
    if not can_be_paged(model):  # its sequences have caches of their own, and blocks only count tokens
        return -(-spec.max_sequences * (model.context_length or UNLIMITED) // spec.block)
    size = block_bytes(model, spec)
    if spec.cache_bytes is None:
        [room] = share_memory([(model, spec)])
    else:
        room = spec.cache_bytes
    if room < size:
        raise UserError(
            "there is too little memory for the cache",
            expected=f"at least {size:,} bytes for {spec.block} tokens",
            got=f"{room:,} bytes" if spec.cache_bytes is not None else "less free",
        )
    return room // size


def share_memory(engines: Sequence[tuple[LanguageModel, EngineSpec]]) -> list[int]:
    """Bytes for the cache of each model of a server, together no more than the machine can spare.

    All get the same, but none more than its texts can use: the rest goes to the others.
    """
    wanted = [
        ROUNDS * -(-spec.max_sequences * (model.context_length or UNLIMITED) // spec.block) * block_bytes(model, spec)
        if can_be_paged(model)
        else 0
        for model, spec in engines
    ]
    rest = int(SHARE * spare_memory(device_of(engines[0][0])))
    shares = [0] * len(engines)
    for index, number in enumerate(sorted(range(len(engines)), key=lambda number: wanted[number])):
        shares[number] = min(wanted[number], rest // (len(engines) - index))
        rest -= shares[number]
    return shares


def block_bytes(model: LanguageModel, spec: EngineSpec) -> int:
    """Memory of a block: what all layers keep of its tokens."""
    dtype = dtype_of(model)
    each = (
        KVStorage.bytes_per_slot(heads, width, torch.int64 if state.integers else dtype, spec.quantize_cache)
        for state in paged_states(model)
        for heads, width in state.vectors
    )
    return spec.block * sum(each)


def can_be_paged(model: LanguageModel) -> bool:
    """Whether all that a model keeps is vectors per token that paged attention can read."""
    states = states_of(model)
    return states is not None and not any(state.recurrent or not state.paged for state in states)


def paged_states(model: LanguageModel) -> tuple[StateSpec, ...]:
    """What each layer keeps per token.

    Raises:
        UserError: a layer keeps something else, which pages cannot hold.
    """
    states = states_of(model)
    if states is None or not can_be_paged(model):
        raise UserError(
            f"{type(model).__name__} can't be served by the engine",
            expected="layers that declare what they keep per token",
            got="a state that pages can't hold" if states else "a model that does not say what its layers keep",
            fix="Write with generate, one text at a time",
        )
    return states
