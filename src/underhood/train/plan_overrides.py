"""What a user may fix before the planner decides the rest. Kept apart so that reading options loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlanOverrides:
    """What the user fixed; None is for the planner to decide.

    Attributes:
        width: the model's width.
        layers: the model's layers.
        heads: its query heads; a 64th of the width if left out.
        kv_heads: its key-value heads; as many as query heads if left out.
        context: tokens per row, and the longest text it is trained for.
        rows: rows per training step.
    """

    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    context: int | None = None
    rows: int | None = None
