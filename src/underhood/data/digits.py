"""Pictures of handwritten digits: the small ones that scikit-learn brings, and MNIST where the reader has it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from underhood.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True)
class Pictures:
    """Grey pictures and what they show.

    Attributes:
        x: (N, side, side) in [0, 1], 1 is ink.
        y: (N,) labels from 0 to 9.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def at(self, places: NDArray[np.int64] | slice) -> Pictures:
        """Some of them."""
        return Pictures(self.x[places], self.y[places])


def digits(seed: int = 0, *, test: int = 359) -> tuple[Pictures, Pictures]:
    """The 1,797 pictures of 8 × 8 in scikit-learn: training and test pictures, divided at random.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "the digits come with scikit-learn, which is missing", fix="pip install scikit-learn"
        ) from error
    bundle: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(bundle.target))
    whole = Pictures((bundle.images / 16).astype(np.float32)[order], bundle.target.astype(np.int64)[order])
    return whole.at(slice(test, None)), whole.at(slice(None, test))


def mnist(folder: Path) -> tuple[Pictures, Pictures]:
    """MNIST's 60,000 training and 10,000 test pictures of 28 × 28 from its four files in the idx format.

    Raises:
        UserError: a file is missing or is not what its name says.
    """
    parts = []
    for name, dimensions in zip(MNIST_FILES, (3, 1, 3, 1), strict=True):
        file = folder / name
        if not file.is_file():
            raise UserError(f"{name} is missing", expected=f"MNIST's four files in {folder}")
        try:
            data = gzip.decompress(file.read_bytes())
            shape = np.frombuffer(data, ">i4", dimensions, 4)
            values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"{name} is not an idx file of {dimensions} dimensions", got=str(error)) from error
        parts.append((values / np.float32(255)) if dimensions == 3 else values.astype(np.int64))
    return Pictures(parts[0], parts[1]), Pictures(parts[2], parts[3])


def resized(pictures: Pictures, side: int) -> Pictures:
    """Scaled to side × side: averaged where pictures shrink, else bilinear."""
    import torch
    from torch.nn.functional import interpolate

    x = torch.from_numpy(np.ascontiguousarray(pictures.x))[:, None]
    shrinks = side < x.shape[-1]
    scaled = interpolate(x, (side, side), mode="bilinear", antialias=shrinks, align_corners=False)
    return Pictures(scaled[:, 0].clamp(0, 1).numpy(), pictures.y)


def framed(pictures: Pictures, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Pictures as a tensor (N, 1, side, side) from −1 (paper) to 1 (ink), and their labels (N)."""
    import torch

    scaled = pictures if side is None else resized(pictures, side)
    return torch.from_numpy(np.ascontiguousarray(scaled.x) * 2 - 1)[:, None], torch.from_numpy(pictures.y)
