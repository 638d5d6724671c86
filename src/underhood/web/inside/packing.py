"""Binary payloads of the page: named facts as JSON, and arrays in only as many bits as a reader can see.

The layout is four bytes (the length of the head, little-endian), the head as JSON in UTF-8, and the arrays' bytes one
after the other. `static/inside/payload.js` reads it, from the server and from a file alike.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

SQUARE_ROOT_STEPS = 255
"""Steps of a share's square root: small weights keep more digits than large ones."""

SIGNED_STEPS = 127


@dataclass(frozen=True)
class PackedArray:
    """An array as bytes.

    Attributes:
        coding: ``f4``, ``f2``, ``u4``, ``u2`` are numbers as they are; ``share`` is the square root of a number from 0
            to 1 in 255 steps; ``signed`` is the root of a number's size in 127 steps, with its sign.
        shape: of the array.
        data: the numbers.
        scale: with ``signed``: the largest size.
        triangle: only the entries up to the diagonal of the last two axes are there, row by row.
    """

    coding: str
    shape: tuple[int, ...]
    data: bytes
    scale: float = 1.0
    triangle: bool = False


def exact(values: Tensor) -> PackedArray:
    """Numbers in single precision."""
    return _packed("f4", values, _numpy(values).astype("<f4"))


def half(values: Tensor) -> PackedArray:
    """Numbers with three digits; in single precision where one is too large for half."""
    array = _numpy(values)
    if not np.all(np.abs(array) < 6e4):
        return exact(values)
    return _packed("f2", values, array.astype("<f2"))


def whole(values: Tensor) -> PackedArray:
    """Whole numbers from 0 up."""
    array = values.numpy()
    small = not array.size or int(array.max()) < 1 << 16
    return _packed("u2" if small else "u4", values, array.astype("<u2" if small else "<u4"))


def shares(values: Tensor, *, triangle: bool = False) -> PackedArray:
    """Numbers from 0 to 1 in a byte each, with an error of at most 0.004 near 1 and far less near 0.

    Args:
        triangle: leaves out what is above the diagonal of the last two axes.
    """
    coded = np.rint(np.sqrt(_numpy(values).clip(0, 1)) * SQUARE_ROOT_STEPS).astype("u1")
    if triangle:
        count = coded.shape[-1]
        coded = coded[..., *np.tril_indices(count)]
    return _packed("share", values, coded, triangle=triangle)


def signed(values: Tensor) -> PackedArray:
    """Numbers of either sign in a byte each; those near 0 keep more digits than the largest."""
    array = _numpy(values)
    scale = float(np.abs(array).max()) if array.size else 0.0
    coded = np.rint(np.sign(array) * np.sqrt(np.abs(array) / (scale or 1.0)) * SIGNED_STEPS).astype("i1")
    return _packed("signed", values, coded, scale=scale or 1.0)


def _packed(coding: str, values: Tensor, array: np.ndarray, **more: Any) -> PackedArray:
    return PackedArray(coding, tuple(values.shape), np.ascontiguousarray(array).tobytes(), **more)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().to(torch.float32).cpu().numpy()


@dataclass(frozen=True)
class Payload:
    """What a panel gets.

    Attributes:
        facts: anything that JSON holds.
        arrays: by name.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, PackedArray] = field(default_factory=dict)

    @classmethod
    def refusal(cls, message: str) -> "Payload":
        """What a view says instead of its numbers where it does not apply."""
        return cls({"refused": message})

    def to_bytes(self) -> bytes:
        """Head and arrays in one piece."""
        described, offset = {}, 0
        for name, array in self.arrays.items():
            described[name] = {
                "coding": array.coding,
                "shape": array.shape,
                "offset": offset,
                "bytes": len(array.data),
                "scale": array.scale,
                "triangle": array.triangle,
            }
            offset += len(array.data)
        head = json.dumps({"facts": self.facts, "arrays": described}, ensure_ascii=False, separators=(",", ":"))
        encoded = head.encode()
        return b"".join([struct.pack("<I", len(encoded)), encoded, *(array.data for array in self.arrays.values())])
