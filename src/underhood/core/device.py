"""Compute device and number format (dtype, autocast)."""

from __future__ import annotations

import contextlib
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Device:
    """A compute device and the dtype of its matrix products.

    Attributes:
        name: ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        dtype: ``float32``, or ``bfloat16`` for matrix products under autocast; weights stay fp32 either way.
    """

    name: str = "cpu"
    dtype: str = "float32"

    @property
    def torch(self) -> torch.device:
        return torch.device(self.name)

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=getattr(torch, self.dtype))

    def wait(self) -> None:
        """Returns when everything queued on the device is done; timings need it."""
        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()


def available_devices() -> list[str]:
    """The device kinds of this machine, the fastest first."""
    kinds = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return [*kinds, "cpu"]


def native_bfloat16(name: str) -> bool:
    """Whether a device may multiply bf16 natively; x86 processors without AMX and AVX512-BF16 emulate it slowly."""
    if name.partition(":")[0] != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def choose_device(name: str | None) -> str:
    """The named device, or the fastest kind there is.

    Raises:
        UserError: there is no such device here.
    """
    here = available_devices()
    if name is None:
        return here[0]
    if name.partition(":")[0] not in here:
        raise UserError(f"no device {name!r} here", expected=" or ".join(here))
    return name
