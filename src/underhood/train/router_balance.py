"""Load balancing of a mixture of experts: a loss that is least when all experts are used equally.

A router that sends every token to the same experts trains only those, which makes them better still. The loss works
against that (Shazeer et al. 2017, section 4; in this form Fedus et al. 2021, equations 4–6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from underhood.nn.moe import MixtureOfExperts


def load_balancing_loss(score_NE: Float[Tensor, "N E"], active: int) -> Float[Tensor, ""]:
    """``E · Σ_e f_e P_e``: f is how many of a token's choices fall on expert e on average, P its mean probability.

    It is `active` if both are the same for all experts, and up to E if all tokens choose alike. Gradients flow through
    P only, since f counts.
    """
    share_NE = score_NE.float().softmax(dim=-1)
    chosen_NA = share_NE.topk(active, dim=-1).indices
    count_E = chosen_NA.flatten().bincount(minlength=score_NE.shape[1]).to(share_NE.dtype)
    return score_NE.shape[1] * (count_E / len(score_NE) * share_NE.mean(dim=0)).sum()


class RouterBalance:
    """Sums the load-balancing loss over a model's routers during a pass."""

    def __init__(self):
        self._losses: list[Tensor] = []

    def add(self, score_NE: Tensor, active: int) -> None:
        self._losses.append(load_balancing_loss(score_NE, active))

    def take(self) -> Tensor:
        """The mean over all routers since the last time, ready for a backward pass."""
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        return mean


@contextmanager
def watching_routers(model: nn.Module) -> Iterator[RouterBalance]:
    """Inside, every pass of the model adds its routers' losses to the `RouterBalance`."""
    balance = RouterBalance()

    def hook(active: int) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _, __, score_NE: balance.add(score_NE, active)

    handles = [
        layer.router.register_forward_hook(hook(layer.spec.experts_per_token))
        for layer in model.modules()
        if isinstance(layer, MixtureOfExperts)
    ]
    try:
        yield balance
    finally:
        for handle in handles:
            handle.remove()
