"""Training batches: token ids with targets, looked up by step number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

IGNORE = -100
"""Target of a position that carries no loss (PyTorch's own `ignore_index`)."""


@dataclass(frozen=True)
class Batch:
    """Rows of tokens with their targets.

    Attributes:
        tokens: int64 (B, T).
        targets: int64 (B, T): the token that should follow, or `IGNORE` where no loss is taken.
        positions: int64 (B, T): position within the document, −1 for padding (see `core.protocols.LanguageModel`);
            None when every row is one document.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor | None = None

    def to(self, device) -> "Batch":
        move = lambda x: None if x is None else x.to(device, non_blocking=True)  # noqa: E731
        return Batch(self.tokens.to(device), self.targets.to(device), move(self.positions))


class Batches(Protocol):
    """Batches by step number: a pure function of the step, so that a resumed run reads what it would have read."""

    def __call__(self, step: int) -> Batch: ...
