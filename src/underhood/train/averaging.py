"""Checkpoint averaging: the mean of the weights at several steps of one training.

The paper of the Transformer averages its last 5 checkpoints (base) or 20 (big), ten minutes apart (Vaswani et al. 2017,
section 6.1). Late in a training the weights wander about a good point; their mean is nearer to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from underhood.core.checkpoint import complete_checkpoints, read_checkpoint
from underhood.core.errors import UserError


def average_tensors(groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors of the same names, taken in fp64; what is not a float is that of the last group."""
    last = groups[-1]
    return {
        name: torch.stack([group[name].double() for group in groups]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in last.items()
    }


def average_checkpoints(folder: Path, last: int) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """The mean weights of the newest `last` checkpoints of a folder, or of as many as there are, and their steps.

    Raises:
        UserError: there is none, or one is damaged.
    """
    paths = complete_checkpoints(folder)[-last:]
    if not paths:
        raise UserError(f"there is no checkpoint in {folder}", expected="at least one to average")
    checkpoints = [read_checkpoint(path) for path in paths]
    weights = average_tensors([checkpoint.tensors("model") for checkpoint in checkpoints])
    return weights, tuple(checkpoint.step for checkpoint in checkpoints)
