"""Eight kinds of problem that look different and are solved differently: what a mixture of experts is made for.

An input is its kind's centre plus noise; the answer is the noise, turned by a matrix of that kind (after Jacobs et al.
1991, whose experts share out vowels).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underhood.nn.block import FeedForwardSpec
from underhood.nn.forward_context import ForwardContext
from underhood.train.router_balance import watching_routers

KINDS, WIDTH, CENTRE = 8, 16, 1.5
POINTS, RATE, BALANCING = 256, 0.01, 0.01


class RandomRouter(nn.Module):
    """Scores that know nothing of the input: an ablation of the router."""

    def __init__(self, experts: int, seed: int):
        super().__init__()
        self.experts, self.draw = experts, torch.Generator().manual_seed(seed)

    def forward(self, x_ND: Tensor) -> Tensor:
        return torch.randn(len(x_ND), self.experts, generator=self.draw)


class Problems:
    """Draws inputs and answers (N, D) of all kinds."""

    def __init__(self, seed: int):
        self.draw = torch.Generator().manual_seed(seed)
        self.centre_KD = CENTRE * torch.randn(KINDS, WIDTH, generator=self.draw)
        self.turn_KDD = torch.linalg.qr(torch.randn(KINDS, WIDTH, WIDTH, generator=self.draw)).Q

    def __call__(self, count: int) -> tuple[Tensor, Tensor]:
        kind_N = torch.randint(KINDS, (count,), generator=self.draw)
        noise_ND = torch.randn(count, WIDTH, generator=self.draw)
        return self.centre_KD[kind_N] + noise_ND, torch.einsum("nd,nde->ne", noise_ND, self.turn_KDD[kind_N])


def error_after_training(spec: FeedForwardSpec, seed: int, steps: int, *, random_router: bool = False) -> float:
    """Mean squared error on new problems; guessing the mean answer has an error of 1."""
    torch.manual_seed(seed)
    layer, problems = spec.build(WIDTH), Problems(seed)
    if random_router:
        layer.router = RandomRouter(KINDS, seed)  # type: ignore[assignment]
    optimizer = torch.optim.Adam(layer.parameters(), lr=RATE)

    def loss(count: int) -> Tensor:
        x_ND, y_ND = problems(count)
        return (layer(x_ND[None], ForwardContext(x_ND[None, :, 0], None, None))[0] - y_ND).square().mean()

    with watching_routers(layer) as balance:
        for step in range(steps):
            value = loss(POINTS)
            if hasattr(layer, "router") and not random_router:
                value = value + BALANCING * balance.take()
            optimizer.zero_grad()
            value.backward()
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, 2 * (1 - step / steps))
            optimizer.step()
        with torch.no_grad():
            return float(loss(4096))
