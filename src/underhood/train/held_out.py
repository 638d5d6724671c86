"""Held-out loss during training: measured at fixed shares of the steps, with the best weights kept (early stopping).

Nothing here asks the clock, so a training that is resumed measures after the same updates, keeps the same weights and
ends at the same step as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underhood.core.device import Device

Tensors = Mapping[str, Tensor]

WORSE = 1.05
"""Held-out loss, as a multiple of the best, above which a measurement counts against going on."""

PATIENCE = 3
"""Measurements in a row that must be `WORSE` before training ends early (Prechelt 1998)."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A small fixed sample of held-out data and how to measure a model on it.

    Attributes:
        batches: the sample, always the same.
        loss_fn: the loss of a batch and further metrics, as sums over its targets (`train.loop.LossFn`).
        evaluations: how often it is measured, evenly over the steps; once more after the first.
        keep_best: training ends with the weights of the lowest held-out loss, and early where it has long passed.
    """

    batches: Sequence[Any]
    loss_fn: Callable[[Any, Any], tuple[Tensor, dict[str, float]]]
    evaluations: int = 12
    keep_best: bool = False

    def due(self, step: int, before: float, share: float) -> bool:
        """Whether to measure after update `step`, which took the training from one share of its steps to another."""
        return step == 1 or int(share * self.evaluations) > int(before * self.evaluations)

    def measure(self, model: nn.Module, device: Device | None = None) -> dict[str, float]:
        """Means over all targets: ``loss`` in nats, and what the loss adds."""
        was_training, targets, sums = model.training, 0, dict[str, float]()
        model.eval()
        with torch.no_grad():
            for batch in self.batches:
                batch = batch if device is None else batch.to(device.torch)
                with device.autocast() if device else Device().autocast():
                    loss, metrics = self.loss_fn(model, batch)
                targets += batch.target_count
                for name, value in {"loss": float(loss), **metrics}.items():
                    sums[name] = sums.get(name, 0.0) + value
        model.train(was_training)
        return {name: value / max(targets, 1) for name, value in sums.items()}


class BestWeights:
    """The history of a training's held-out loss, and the weights that it was lowest with.

    Args:
        history: (step, loss) of earlier measurements, of a resumed training.
        tensors: the best weights so far; None if the model has them now.
    """

    def __init__(self, history: Sequence[tuple[int, float]] = (), tensors: Tensors | None = None):
        self.history = list(history)
        self.tensors = tensors

    @property
    def step(self) -> int:
        """The step of the lowest loss; 0 before the first measurement."""
        return min(self.history, key=lambda measured: measured[1])[0] if self.history else 0

    @property
    def loss(self) -> float:
        """The lowest loss; infinite before the first measurement."""
        return min((loss for _, loss in self.history), default=float("inf"))

    def add(self, step: int, loss: float, weights: Callable[[], Tensors]) -> None:
        """Records a measurement; copies the weights if it is the best one."""
        best = self.loss
        self.history.append((step, loss))
        if loss < best:
            self.tensors = {name: tensor.detach().clone() for name, tensor in weights().items()}

    @property
    def overdue(self) -> bool:
        """Whether the last measurements were all clearly worse than the best."""
        last = self.history[-PATIENCE:]
        return len(last) == PATIENCE and all(loss > WORSE * self.loss for _, loss in last)
