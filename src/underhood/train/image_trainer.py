"""Training of small picture classifiers, as their papers did it: a few options, no schedule to speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

ONEDNN_BATCH_MIN = 8
"""Batch size from which oneDNN's convolutions are faster."""

Data = tuple[Tensor, Tensor]
"""Pictures (N, 1, side, side) in [−1, 1], and labels (N)."""


@dataclass(frozen=True, kw_only=True)
class ImageTrainer:
    """How a classifier is trained.

    Attributes:
        passes: over all pictures, each in a new order.
        batch: pictures per step.
        lr: of plain stochastic gradient descent; of AdamW, whose rate falls to a third by the end, if `adam`.
        squared: squared error of tanh outputs against ±1 in place of cross-entropy.
        shifts: every picture is moved by −1, 0 or 1 pixels either way, each time anew.
        momentum: of stochastic gradient descent.
    """

    passes: int
    batch: int
    lr: float
    adam: bool = False
    squared: bool = False
    shifts: bool = False
    momentum: float = 0.0

    def __call__(self, net: nn.Module, data: Data, tell: Callable[[float], object] = lambda share: None) -> nn.Module:
        """Trains the net in place with torch's global random numbers; returns it in evaluation mode.

        Args:
            tell: hears the share that is done.
        """
        x, y = data
        weights = list(net.parameters())
        rule = (
            torch.optim.AdamW(weights, self.lr, fused=True)
            if self.adam
            else torch.optim.SGD(weights, self.lr, momentum=self.momentum, fused=True)
        )
        target = F.one_hot(y, 10) * 2.0 - 1
        steps = self.passes * -(-len(y) // self.batch)
        net.train()
        with _plain_convolutions() if self.batch < ONEDNN_BATCH_MIN else nullcontext():
            for step, at in enumerate(self._batches(len(y))):
                if self.adam:
                    rule.param_groups[0]["lr"] = self.lr * (1 - 2 / 3 * step / steps)
                z = net(shifted(x[at]) if self.shifts else x[at])
                loss = ((z.tanh() - target[at]) ** 2).mean() if self.squared else F.cross_entropy(z, y[at])
                rule.zero_grad()
                loss.backward()
                rule.step()
                tell(step / steps)
        return net.eval()

    def _batches(self, count: int) -> Iterator[Tensor]:
        for _ in range(self.passes):
            yield from torch.randperm(count).split(self.batch)


@contextmanager
def _plain_convolutions() -> Iterator[None]:
    """PyTorch's own convolutions instead of oneDNN's, whose preparations take longer than a few small pictures."""
    before = torch.backends.mkldnn.set_flags(False)[0]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)


def shifted(x: Float[Tensor, "B 1 S S"]) -> Float[Tensor, "B 1 S S"]:
    """Each picture moved by −1, 0 or 1 pixels either way; paper (−1) comes in at the edge."""
    side = x.shape[-1]
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
    down, right = torch.randint(0, 3, (2, len(x)))
    rows = (down[:, None] + torch.arange(side))[:, None, :, None]
    columns = (right[:, None] + torch.arange(side))[:, None, None, :]
    return padded[torch.arange(len(x))[:, None, None, None], 0, rows, columns]


@torch.inference_mode()
def error(net: nn.Module, x: Float[Tensor, "N 1 S S"], y: Int[Tensor, "N"]) -> float:
    """Which part of the pictures the net labels wrongly."""
    return float((net(x).argmax(-1) != y).float().mean())
