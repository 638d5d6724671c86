"""The mixture of experts against its own equation, written without any routing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underhood.core.config import from_json, to_json
from underhood.nn.forward_context import ForwardContext
from underhood.nn.moe import MixtureOfExperts, MoESpec

WIDTH = 12


def built(normalise: bool = True, active: int = 2) -> MixtureOfExperts:
    torch.manual_seed(3)
    model = MoESpec(experts=5, experts_per_token=active, d_ff=16, normalise=normalise).build(WIDTH)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.double()


def dense(model: MixtureOfExperts, x_BTD: Tensor) -> Tensor:
    """Every expert for every token, then the weights: zero for those not chosen."""
    share_BTE = (x_BTD @ model.router.weight.T).softmax(dim=-1)
    worst_BT1 = share_BTE.sort(dim=-1, descending=True).values[
        ..., model.spec.experts_per_token - 1 : model.spec.experts_per_token
    ]
    weight_BTE = share_BTE * (share_BTE >= worst_BT1)
    if model.spec.normalise:
        weight_BTE = weight_BTE / weight_BTE.sum(dim=-1, keepdim=True)
    y_BTED = torch.stack([expert(x_BTD, ctx(x_BTD)) for expert in model.experts], dim=2)
    return (weight_BTE[..., None] * y_BTED).sum(dim=2)


def ctx(x_BTD: Tensor) -> ForwardContext:
    return ForwardContext(torch.zeros(x_BTD.shape[:2], dtype=torch.long), None, None)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("active", [1, 2, 5])
def test_moe_matches_the_sum_over_all_experts_forward_and_backward(normalise: bool, active: int) -> None:
    model, x = built(normalise, active), torch.randn(2, 7, WIDTH, dtype=torch.float64, requires_grad=True)
    ours, expected = model(x, ctx(x)), dense(model, x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)  # the router's softmax is fp32
    upstream = torch.randn_like(ours)
    inputs = (x, *model.parameters())
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, upstream, allow_unused=True),
        torch.autograd.grad(expected, inputs, upstream, allow_unused=True),
        strict=True,
    ):
        if mine is None:  # an expert that nobody chose
            assert other is None or other.abs().max() == 0
        else:
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_moe_runs_only_the_experts_that_were_chosen() -> None:
    model, x = built(), torch.randn(1, 1, WIDTH, dtype=torch.float64)
    ran: list[int] = []
    for number, expert in enumerate(model.experts):
        expert.register_forward_hook(lambda module, given, out, number=number: ran.append(number))
    seen: list[Tensor] = []
    model.router.register_forward_hook(lambda module, given, out: seen.append(out))
    model.choice.register_forward_hook(lambda module, given, out: seen.append(out[1]))
    model(x, ctx(x))
    assert sorted(ran) == sorted(seen[1][0].tolist())
    assert sorted(ran) == sorted(seen[0][0].topk(2).indices.tolist())


def test_moe_needs_its_weights() -> None:
    """Without the router's shares (all chosen ones counting alike), it is another function."""
    model, x = built(), torch.randn(2, 7, WIDTH, dtype=torch.float64)
    expected = dense(model, x)
    model.choice.register_forward_hook(lambda module, given, out: (torch.full_like(out[0], 0.5), out[1]))
    assert not torch.allclose(model(x, ctx(x)), expected, rtol=1e-2)


def test_moe_spec_checks_and_round_trips() -> None:
    spec = MoESpec(experts=4, experts_per_token=2, d_ff=8, normalise=False, activation="gelu_tanh")
    assert from_json(MoESpec, to_json(spec)) == spec
    for active in (0, 5):
        with pytest.raises(ValueError, match="experts_per_token must be from 1 to experts"):
            MoESpec(experts=4, experts_per_token=active, d_ff=8)
