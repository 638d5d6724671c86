"""SGD, Adagrad and RMSprop against PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from underhood.train.classic_optimizers import SGD, Adagrad, RMSprop
from underhood.train.optim import Optimizer, Rule

KINDS: dict[str, tuple[Callable[[Any], Rule], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (lambda n: SGD(n, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda n: SGD(n, lr=0.1, momentum=0.9, decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        lambda n: SGD(n, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "adagrad": (lambda n: Adagrad(n, lr=0.1), lambda p: torch.optim.Adagrad(p, lr=0.1)),
    "rmsprop": (lambda n: RMSprop(n, lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 6), (5,))]


def step(own: list[nn.Parameter], number: int, act: Callable[[], Any]) -> None:
    generator = torch.Generator().manual_seed(number)
    for p in own:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10 ** (number % 5 - 2)
    act()


@pytest.mark.parametrize("kind", KINDS)
def test_classic_rules_100_steps_match_torch(kind: str):
    ours, theirs = parameters(), parameters()
    rule = KINDS[kind][0]([(f"p{i}", p) for i, p in enumerate(ours)])
    oracle = KINDS[kind][1](theirs)
    for number in range(100):
        step(ours, number, lambda: rule.step(1.0))
        step(theirs, number, oracle.step)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_classic_rules_go_on_bit_for_bit_from_a_saved_state(kind: str):
    whole, again = parameters(), parameters()
    for own, reload_at in ((whole, None), (again, 5)):
        build = lambda own=own: Optimizer([KINDS[kind][0]([(f"p{i}", p) for i, p in enumerate(own)])])  # noqa: E731
        optimizer = build()
        for number in range(10):
            if number == reload_at:
                saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
                optimizer = build()
                optimizer.load_state(saved)
            step(own, number, lambda optimizer=optimizer: optimizer.step(0.5))
    for p, q in zip(whole, again, strict=True):
        assert torch.equal(p, q)
