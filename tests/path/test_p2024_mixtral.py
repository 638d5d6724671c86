"""Mixture of experts and its load-balancing loss, against transformers' Mixtral."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underhood.nn.forward_context import ForwardContext
from underhood.nn.moe import MoESpec
from underhood.train.router_balance import load_balancing_loss, watching_routers


@torch.no_grad()
def test_mixture_matches_transformers_block():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    torch.manual_seed(0)
    theirs = MixtralSparseMoeBlock(MixtralConfig(hidden_size=12, intermediate_size=20, num_local_experts=8)).eval()
    ours = MoESpec(experts=8, experts_per_token=2, d_ff=20).build(12)
    for parameter in theirs.parameters():
        parameter.normal_(std=0.4)
    ours.router.weight.copy_(theirs.gate.weight)
    for number, expert in enumerate(ours.experts):
        gate, up = theirs.experts.gate_up_proj[number].chunk(2)
        expert.gate.weight.copy_(gate)  # type: ignore[union-attr]
        expert.up.weight.copy_(up)  # type: ignore[union-attr]
        expert.down.weight.copy_(theirs.experts.down_proj[number])  # type: ignore[union-attr]
    x_BTD = torch.randn(2, 9, 12)
    ctx = ForwardContext(torch.zeros(2, 9, dtype=torch.long), None, None)
    torch.testing.assert_close(ours(x_BTD, ctx), theirs(x_BTD), rtol=0, atol=1e-5)


@pytest.mark.parametrize("active", [1, 2, 4])
def test_load_balancing_loss_matches_transformers(active: int):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    score_NE = torch.randn(50, 8, generator=torch.Generator().manual_seed(active)) * 2
    theirs = load_balancing_loss_func((score_NE,), num_experts=8, top_k=active)
    assert isinstance(theirs, Tensor)
    torch.testing.assert_close(load_balancing_loss(score_NE, active), theirs)


def test_load_balancing_loss_is_least_for_equal_use_and_most_for_a_single_expert():
    even = 50 * torch.eye(8).repeat(4, 1)
    assert float(load_balancing_loss(even, 1)) == pytest.approx(1.0)
    assert float(load_balancing_loss(even[:1].repeat(32, 1), 1)) == pytest.approx(8.0)


def test_watching_takes_the_mean_over_layers_and_gives_routers_a_gradient():
    layers = torch.nn.ModuleList(MoESpec(experts=4, experts_per_token=2, d_ff=8).build(6) for _ in range(2))
    x_BTD = torch.randn(1, 20, 6)
    ctx = ForwardContext(torch.zeros(1, 20, dtype=torch.long), None, None)
    with watching_routers(layers) as balance:
        for layer in layers:
            layer(x_BTD, ctx)
        loss = balance.take()
    expected = [load_balancing_loss(layer.router(x_BTD[0]), 2) for layer in layers]  # type: ignore[operator]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert all(float(layer.router.weight.grad.abs().sum()) > 0 for layer in layers)  # type: ignore[union-attr]
    assert not layers[0].router._forward_hooks  # type: ignore[union-attr]
