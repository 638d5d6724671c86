"""Series over seeds for figures: the mean of several runs, and the range between the lowest and the highest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.figures import Series


def over_seeds(
    name: str, table_NS: Float[Tensor, "N S"] | Sequence[Sequence[float]], x: Sequence[float] = ()
) -> Series:
    """One point for each of N things, the mean of S seeds with their range; `x` is 0, 1, 2… if it is not given."""
    table_NS = torch.as_tensor(table_NS)
    return Series(
        name,
        tuple(x) or tuple(range(len(table_NS))),
        tuple(table_NS.mean(dim=1).tolist()),
        tuple(table_NS.amin(dim=1).tolist()),
        tuple(table_NS.amax(dim=1).tolist()),
    )
