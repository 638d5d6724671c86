"""The optimisers that led to AdamW, written out: SGD with momentum, Adagrad, RMSprop and AdamW itself.

Training uses PyTorch's fused AdamW (`train.optim`); tests hold these to `torch.optim`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Rule(Optimizer, ABC):
    """An update rule per parameter: a subclass turns a gradient into an update in `update`."""

    @abstractmethod
    def update(self, p: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Changes `p` and its `state` (empty at first) in place; `group` holds the settings."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None, "these rules evaluate no closure"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p], group)


class SGD(Rule):
    """``v ← μ v + g``, ``p ← p − lr · v``; with `nesterov` the step looks ahead, ``p ← p − lr · (g + μ v)``.

    Source: Polyak 1964; Sutskever et al. 2013, in PyTorch's form (the rate is outside the velocity). The
    `weight_decay` is added to the gradient (L2), not decoupled as in AdamW.
    """

    def __init__(
        self, params: Any, *, lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})

    def update(self, p: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = grad.add(p, alpha=group["weight_decay"])
        velocity = state.setdefault("velocity", torch.zeros_like(p))
        velocity.mul_(group["momentum"]).add_(grad)
        p.sub_(grad.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity, alpha=group["lr"])


class Adagrad(Rule):
    """``p ← p − lr · g / (√Σg² + ε)``: each weight's steps shrink with what it has moved already.

    Source: Duchi et al. 2011, the diagonal form. Rare features keep long steps; nothing is ever forgotten.
    """

    def __init__(self, params: Any, *, lr: float, eps: float = 1e-10):
        super().__init__(params, {"lr": lr, "eps": eps})

    def update(self, p: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        total = state.setdefault("sum", torch.zeros_like(p))
        total.addcmul_(grad, grad)
        p.addcdiv_(grad, total.sqrt().add_(group["eps"]), value=-group["lr"])


class RMSprop(Rule):
    """Adagrad that forgets: ``v ← α v + (1 − α) g²``, ``p ← p − lr · g / (√v + ε)``.

    Source: Tieleman & Hinton 2012 (lecture 6.5). Adam is this with momentum and without a start from zero.
    """

    def __init__(self, params: Any, *, lr: float, alpha: float = 0.99, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    def update(self, p: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        square = state.setdefault("square_avg", torch.zeros_like(p))
        square.mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
        p.addcdiv_(grad, square.sqrt().add_(group["eps"]), value=-group["lr"])


class AdamW(Rule):
    """``p ← p − lr · (m̂ / (√v̂ + ε) + λ p)``, with bias-corrected running means m of g and v of g².

    Source: Kingma & Ba 2015, algorithm 1, with the decay decoupled as in Loshchilov & Hutter 2019, algorithm 2.

    Args:
        bias_correction: False takes the means, which start from zero, as they are.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
    ):
        self.bias_correction = bias_correction
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, p: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = int(state["step"])
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correct1, correct2 = (1 - beta1**step, 1 - beta2**step) if self.bias_correction else (1.0, 1.0)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcdiv_(mean, (square / correct2).sqrt_().add_(group["eps"]), value=-group["lr"] / correct1)
