"""Paged attention: new tokens attend to keys and values in the paged KV cache (Kwon et al. 2023).

A sequence is stored in runs of neighbouring slots, anywhere in memory, some of them shared. Tensor kernels would need
its keys gathered first; this loop visits the runs. It takes head after head and, within a head, sequence after
sequence, so that shared prefixes are still in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from underhood.kernels.elementwise import array, exp, stored, value
from underhood.kernels.jit import kernel, overload, parallel_kernel, prange, run_parallel
from underhood.kernels.simd import LINE, prefetch

SERIAL_WORK_MAX = 1 << 18
"""Multiplications up to which one thread does all; sharing them out would take as long."""


class Memory(NamedTuple):
    """Keys or values of one layer: float32, bits of bfloat16, or whole numbers of 8 bits with a scale per vector."""

    data_GSK: np.ndarray
    scale_GS: np.ndarray


class BlockTable(NamedTuple):
    """Block table: where N sequences are stored in the KV cache.

    Attributes:
        slots_N: where the newest token of each goes.
        first_N: index of each sequence's first run, and at the end their number (N + 1).
        runs_R2: first slot and length of each run; the newest token's slot is the last one of its sequence.
    """

    slots_N: np.ndarray
    first_N: np.ndarray
    runs_R2: np.ndarray

    @property
    def seen(self) -> int:
        """Keys that all sequences attend to together."""
        return int(self.runs_R2[:, 1].sum())

    @classmethod
    def of(cls, texts: Sequence[Sequence[tuple[int, int]]]) -> "BlockTable":
        """From the runs (first slot, length) that each sequence's newest token attends to."""
        counts = [len(runs) for runs in texts]
        last = [runs[-1] for runs in texts]
        return cls(
            np.array([slot + length - 1 for slot, length in last]),
            np.cumsum([0, *counts]),
            np.array([run for runs in texts for run in runs]),
        )


def memory(data_GSK: Tensor, scale_GS: Tensor | None = None) -> Memory:
    """A tensor as keys or values; with `scale_GS` if it holds 8 bits."""
    data = array(data_GSK)
    return Memory(data, _ones(data.shape[:2]) if scale_GS is None else scale_GS.numpy())


@lru_cache(maxsize=64)
def _ones(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.float32(1.0), shape)


def paged_attention(
    qkv: tuple[np.ndarray, np.ndarray, np.ndarray],
    keys: Memory,
    values: Memory,
    block_table: BlockTable,
    y_NHK: np.ndarray,
    *,
    scale: float | None,
    softcap: float | None,
) -> None:
    """Stores the new keys and values, then computes attention for each new token into y.

    Args:
        qkv: queries (N, H, K), keys and values (N, G, K).
        scale: what scores are multiplied by; None means 1 / sqrt(K).
        softcap: presses scores softly into ±cap, or None.
    """
    (_, heads, width), groups = y_NHK.shape, qkv[1].shape[1]
    arguments = (y_NHK, *qkv, *keys, *values, *block_table, *score_arguments(scale, softcap, width))
    if fits_one_thread(block_table, heads, width):
        attend(0, groups, *arguments)
    else:
        run_parallel(attend_in_parts, groups, *arguments)


def score_arguments(scale: float | None, softcap: float | None, width: int) -> tuple[np.float32, np.float32]:
    """What the kernels multiply scores by, and their softcap or 0; see `paged_attention`."""
    return np.float32(width**-0.5 if scale is None else scale), np.float32(softcap or 0.0)


def fits_one_thread(block_table: BlockTable, heads: int, width: int) -> bool:
    """Whether there is too little attention to compute to share it out among threads."""
    return block_table.seen * heads * width < SERIAL_WORK_MAX


@parallel_kernel
def attend_in_parts(parts: int, groups: int, *arguments: Any) -> None:
    """`attend` for all groups, on all threads."""
    for chunk in prange(parts):
        attend(groups * chunk // parts, groups * (chunk + 1) // parts, *arguments)


@kernel
def attend(
    first_group: int,
    end_group: int,
    y_NHK: Any,
    q_NHK: Any,
    k_NGK: Any,
    v_NGK: Any,
    keys_GSK: Any,
    key_scale_GS: Any,
    values_GSK: Any,
    value_scale_GS: Any,
    slots_N: Any,
    first_N: Any,
    runs_R2: Any,
    factor: Any,
    cap: Any,
) -> None:
    """`paged_attention` of some groups of heads; a `cap` of 0 is none."""
    texts, heads, width = q_NHK.shape
    per_group = heads // k_NGK.shape[1]
    most_keys = 0
    for n in range(texts):
        count = 0
        for p in range(first_N[n], first_N[n + 1]):
            count += runs_R2[p, 1]
        most_keys = max(most_keys, count)
    score_S = np.empty(most_keys, dtype=np.float32)
    q_K, y_K = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    for group in range(first_group, end_group):
        for n in range(texts):
            put(keys_GSK, key_scale_GS, group, slots_N[n], k_NGK[n, group])
            put(values_GSK, value_scale_GS, group, slots_N[n], v_NGK[n, group])
        for head in range(group * per_group, (group + 1) * per_group):
            for n in range(texts):
                for i in range(width):
                    q_K[i] = value(q_NHK[n, head, i]) * factor
                count = 0
                for p in range(first_N[n], first_N[n + 1]):
                    start, length = runs_R2[p, 0], runs_R2[p, 1]
                    key_SK, scale_S = (
                        keys_GSK[group, start : start + length],
                        key_scale_GS[group, start : start + length],
                    )
                    ahead = key_SK.ctypes.data + keys_GSK.strides[0]
                    for s in range(length):
                        for line in range(0, width * key_SK.itemsize, LINE):
                            prefetch(ahead + s * width * key_SK.itemsize + line)
                        score = np.float32(0.0)
                        for i in range(width):
                            score += q_K[i] * value(key_SK[s, i])
                        score_S[count] = score * scale_S[s]
                        count += 1
                if cap > 0:
                    for s in range(count):
                        score_S[s] = cap * np.float32(math.tanh(score_S[s] / cap))
                most = np.float32(-np.inf)
                for s in range(count):
                    most = score_S[s] if score_S[s] > most else most
                total = np.float32(0.0)
                for s in range(count):
                    score_S[s] = exp(score_S[s] - most)
                    total += score_S[s]
                y_K[:] = 0
                count = 0
                for p in range(first_N[n], first_N[n + 1]):
                    start, length = runs_R2[p, 0], runs_R2[p, 1]
                    value_SK = values_GSK[group, start : start + length]
                    scale_S = value_scale_GS[group, start : start + length]
                    ahead = value_SK.ctypes.data + values_GSK.strides[0]
                    for s in range(length):
                        for line in range(0, width * value_SK.itemsize, LINE):
                            prefetch(ahead + s * width * value_SK.itemsize + line)
                        weight = score_S[count] * scale_S[s]
                        count += 1
                        for i in range(width):
                            y_K[i] += weight * value(value_SK[s, i])
                for i in range(width):
                    y_NHK[n, head, i] = stored(y_NHK, y_K[i] / total)


def put(data_GSK: Any, scale_GS: Any, group: int, slot: int, x_K: Any) -> None:
    """Stores a vector; in 8 bits, with the scale that makes its largest number 127."""
    raise NotImplementedError("only for compiled code")


@overload(put, strict=False)
def _put(data_GSK: Any, scale_GS: Any, group: int, slot: int, x_K: Any) -> Any:
    return _put_rounded if data_GSK.dtype.bitwidth == 8 else _put_plain


def _put_plain(data_GSK: Any, scale_GS: Any, group: int, slot: int, x_K: Any) -> None:
    for i in range(x_K.shape[0]):
        data_GSK[group, slot, i] = stored(data_GSK, value(x_K[i]))


def _put_rounded(data_GSK: Any, scale_GS: Any, group: int, slot: int, x_K: Any) -> None:
    most = np.float32(1e-12 * 127)
    for i in range(x_K.shape[0]):
        most = max(most, abs(value(x_K[i])))
    scale = most / np.float32(127.0)
    scale_GS[group, slot] = scale
    for i in range(x_K.shape[0]):
        data_GSK[group, slot, i] = np.int8(np.rint(value(x_K[i]) / scale))
