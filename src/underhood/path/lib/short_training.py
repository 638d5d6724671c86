"""Training of the small decoders that milestones look into: a loss for each step, learning rates that fall to zero."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from underhood.models.decoder import Decoder
from underhood.train.optim import MuonAdamWSpec, scale_lr


def train_by_step(
    model: Decoder, loss: Callable[[int], Tensor], steps: int, *, fall: float, tell: Callable[[float], object]
) -> Decoder:
    """Muon and AdamW (`train.optim`) on ``loss(step)``; the trained model, ready to be looked into.

    Args:
        fall: learning rates are constant first and fall linearly to zero over the last ``1 / fall`` of the steps.
        tell: hears the share of the steps that is done.
    """
    optimizer = MuonAdamWSpec(matrix_lr=0.02, lr=0.01).build(model)
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        scale_lr(optimizer, min(1.0, fall * (1 - step / steps)))
        optimizer.step()
        tell(step / steps)
    return model.eval()
