"""SGD, Adagrad, RMSprop and AdamW against PyTorch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from underhood.train.classic_optimizers import SGD, Adagrad, AdamW, RMSprop, Rule

KINDS: dict[str, tuple[Callable[[Any], Rule], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (lambda n: SGD(n, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda n: SGD(n, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        lambda n: SGD(n, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "adagrad": (lambda n: Adagrad(n, lr=0.1), lambda p: torch.optim.Adagrad(p, lr=0.1)),
    "rmsprop": (lambda n: RMSprop(n, lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
}


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((4, 6), (5,))]


def step(own: list[nn.Parameter], number: int, act: Callable[[], Any]) -> None:
    generator = torch.Generator().manual_seed(number)
    for p in own:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10 ** (number % 5 - 2)
    act()


@pytest.mark.parametrize("kind", KINDS)
def test_classic_rules_100_steps_match_torch(kind: str):
    ours, theirs = parameters(), parameters()
    rule = KINDS[kind][0](ours)
    oracle = KINDS[kind][1](theirs)
    for number in range(100):
        step(ours, number, lambda: rule.step())
        step(theirs, number, oracle.step)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_classic_rules_go_on_bit_for_bit_from_a_saved_state(kind: str):
    whole, again = parameters(), parameters()
    for own, reload_at in ((whole, None), (again, 5)):
        optimizer = KINDS[kind][0](own)
        for number in range(10):
            if number == reload_at:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = KINDS[kind][0](own)
                optimizer.load_state_dict(saved)
            step(own, number, optimizer.step)
    for p, q in zip(whole, again, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_100_steps_match_torch(dtype: torch.dtype, tolerance: float, decay: float):
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = AdamW(ours, lr=3e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    oracle = torch.optim.AdamW(theirs, lr=3e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    for number in range(100):
        for own, each in ((ours, optimizer), (theirs, oracle)):
            each.param_groups[0]["lr"] = 3e-2 * (1 - number / 200)
            step(own, number, each.step)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def test_adamw_first_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    """Bias correction: without it the first step would be (1 − β₁)/√(1 − β₂) ≈ 0.45 of that."""
    for scale in (1e-3, 1.0, 1e3):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        p.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) * scale
        AdamW([p], lr=0.1, betas=(0.9, 0.95), eps=1e-12).step()
        torch.testing.assert_close(p.detach(), torch.tensor([-0.1, 0.1, -0.1], dtype=torch.float64))


def test_adamw_leaves_parameters_without_gradient_alone():
    p = nn.Parameter(torch.ones(2))
    AdamW([p], lr=0.1, betas=(0.9, 0.95), weight_decay=0.5).step()
    assert torch.equal(p, torch.ones(2))
