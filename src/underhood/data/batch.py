"""Training batches: token ids with targets, looked up by step number."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from underhood.core.errors import UserError

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

    @property
    def target_count(self) -> int:
        """Positions that carry a loss."""
        return int((self.targets != IGNORE).sum())

    @property
    def token_count(self) -> int:
        """Tokens read, padding left out."""
        return self.tokens.numel() if self.positions is None else int((self.positions >= 0).sum())

    def shard(self, rank: int, world_size: int) -> "Batch":
        """The rows of this batch that process `rank` of `world_size` reads.

        Raises:
            UserError: there are fewer rows than processes.
        """
        mine = shard_rows(len(self.tokens), rank, world_size)
        return Batch(self.tokens[mine], self.targets[mine], None if self.positions is None else self.positions[mine])


def shard_rows(rows: int, rank: int, world_size: int) -> slice:
    """Which of `rows` rows process `rank` of `world_size` reads.

    Raises:
        UserError: there are fewer rows than processes.
    """
    if rows < world_size:
        raise UserError(
            "a batch is too small to divide", expected=f"at least {world_size} rows, one per process", got=str(rows)
        )
    return slice(rank, None, world_size)
