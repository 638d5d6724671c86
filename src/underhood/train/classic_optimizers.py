"""The optimisers that led to Adam: SGD with momentum, Adagrad and RMSprop, as rules of `train.optim`."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.train.optim import Named


class SGD:
    """``v ← μ v + g``, ``p ← p − lr · v``; with `nesterov` the step looks ahead, ``p ← p − lr · (g + μ v)``.

    Source: Polyak 1964; Sutskever et al. 2013, in PyTorch's form (the rate stands outside the velocity). The `decay`
    is added to the gradient (L2), not decoupled as in AdamW.
    """

    def __init__(self, named: Named, *, lr: float, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0):
        self.named, self.lr, self.momentum, self.nesterov, self.decay = named, lr, momentum, nesterov, decay
        self.velocity = [torch.zeros_like(p) for _, p in named]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for (_, p), v in zip(self.named, self.velocity, strict=True):
            if p.grad is None:
                continue
            g = p.grad.add(p, alpha=self.decay)
            v.mul_(self.momentum).add_(g)
            p.sub_(g.add(v, alpha=self.momentum) if self.nesterov else v, alpha=self.lr * rate)

    def state(self) -> dict[str, Tensor]:
        return {f"sgd.velocity.{name}": v for (name, _), v in zip(self.named, self.velocity, strict=True)}


class Adagrad:
    """``p ← p − lr · g / (√Σg² + ε)``: each weight's steps shrink with what it has moved already.

    Source: Duchi et al. 2011, the diagonal form. Rare features keep long steps; nothing is ever forgotten.
    """

    def __init__(self, named: Named, *, lr: float, eps: float = 1e-10):
        self.named, self.lr, self.eps = named, lr, eps
        self.total = [torch.zeros_like(p) for _, p in named]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for (_, p), total in zip(self.named, self.total, strict=True):
            if p.grad is not None:
                total.addcmul_(p.grad, p.grad)
                p.addcdiv_(p.grad, total.sqrt().add_(self.eps), value=-self.lr * rate)

    def state(self) -> dict[str, Tensor]:
        return {f"adagrad.total.{name}": total for (name, _), total in zip(self.named, self.total, strict=True)}


class RMSprop:
    """Adagrad that forgets: ``v ← α v + (1 − α) g²``, ``p ← p − lr · g / (√v + ε)``.

    Source: Tieleman & Hinton 2012 (lecture 6.5). Adam is this with momentum and without a start from zero.
    """

    def __init__(self, named: Named, *, lr: float, alpha: float = 0.99, eps: float = 1e-8):
        self.named, self.lr, self.alpha, self.eps = named, lr, alpha, eps
        self.square = [torch.zeros_like(p) for _, p in named]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for (_, p), v in zip(self.named, self.square, strict=True):
            if p.grad is not None:
                v.mul_(self.alpha).addcmul_(p.grad, p.grad, value=1 - self.alpha)
                p.addcdiv_(p.grad, v.sqrt().add_(self.eps), value=-self.lr * rate)

    def state(self) -> dict[str, Tensor]:
        return {f"rmsprop.square.{name}": v for (name, _), v in zip(self.named, self.square, strict=True)}
