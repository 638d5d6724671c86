"""Checkpoint averaging against a mean by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from underhood.core.checkpoint import write_checkpoint
from underhood.core.errors import UserError
from underhood.train.averaging import average_checkpoints


def test_average_is_the_mean_of_the_last_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        average_checkpoints(tmp_path, 3)
    for step in (1, 2, 3, 4):
        tensors = {"w": torch.tensor([1.0, step**2]), "n": torch.tensor(step)}
        write_checkpoint(tmp_path, step, {"model": tensors}, {}, keep=9)
    weights, steps = average_checkpoints(tmp_path, 3)
    assert steps == (2, 3, 4)
    assert weights["w"].tolist() == pytest.approx([1.0, (4 + 9 + 16) / 3])
    assert weights["n"].item() == 4
    assert average_checkpoints(tmp_path, 99)[1] == (1, 2, 3, 4)
