"""Peak performance of this machine: the limits that throughput is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from underhood.core.device import Device, native_bfloat16

WORTH_HALF = 1.5
"""How many times faster bf16 products must be than fp32's to be worth their precision."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Measured limits of one device.

    Attributes:
        device: device and the number format whose matrix products were faster.
        flops: floating-point operations per second of a large matrix product in that format.
        read_bytes: bytes per second of reading memory.
    """

    device: Device
    flops: float
    read_bytes: float


def measure_hardware(name: str, *, dtype: str | None = None, seconds: float = 0.4) -> Hardware:
    """Times matrix products and memory reads for about `seconds` each.

    Unless `dtype` says otherwise, bf16 is taken where its products are at least half again as fast as fp32's: on
    tensor cores, and on processors with matrix units of their own (AMX). Elsewhere a CPU multiplies bf16 no faster, or
    far slower, and fp32 it is; where it is known to lack the instructions, bf16 is not even timed.
    """
    chosen = Device(name=name, dtype="float32")
    flops = _matmul_flops(chosen, torch.float32, seconds)
    if dtype == "bfloat16" or (dtype is None and native_bfloat16(name)):
        half = _matmul_flops(chosen, torch.bfloat16, seconds)
        if dtype == "bfloat16" or half >= WORTH_HALF * flops:
            chosen, flops = Device(name=name, dtype="bfloat16"), half
    return Hardware(device=chosen, flops=flops, read_bytes=_read_speed(chosen, seconds))


def faster_dtype(name: str, *, seconds: float = 0.2) -> Literal["float32", "bfloat16"]:
    """The number format in which a device multiplies faster, by the rule of `measure_hardware`."""
    if not native_bfloat16(name):
        return "float32"
    device = Device(name=name)
    half, whole = (_matmul_flops(device, dtype, seconds) for dtype in (torch.bfloat16, torch.float32))
    return "bfloat16" if half >= WORTH_HALF * whole else "float32"


def best_time(work: Callable[[], object], device: Device, seconds: float) -> float:
    """Median seconds of one call over as many calls as fit into about `seconds`, after one to warm up."""
    work()
    device.wait()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 200):
        start = time.perf_counter()
        work()
        device.wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _matmul_flops(device: Device, dtype: torch.dtype, seconds: float) -> float:
    size = 1024 if device.kind == "cpu" else 8192
    a = torch.randn(size, size, device=device.torch, dtype=dtype)
    b = torch.randn(size, size, device=device.torch, dtype=dtype)
    return 2 * size**3 / best_time(lambda: a @ b, device, seconds)


def _read_speed(device: Device, seconds: float) -> float:
    count = 2**25 if device.kind == "cpu" else 2**28  # 128 MB and 1 GB: beyond any cache
    x = torch.ones(count, device=device.torch)
    return 4 * count / best_time(x.sum, device, seconds)
