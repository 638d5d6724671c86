"""Layers of 8 and 4 bits against plain ones with the weights that they represent."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from underhood.kernels.weight_only_linear import Int4Linear, Int8Linear, WeightOnlyLinear

KINDS = [Int8Linear, Int4Linear]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [1, 40, 64, 200])
@pytest.mark.parametrize("outputs", [1, 7, 8, 63, 200])
@torch.no_grad()
def test_product_matches_the_rounded_weight(kind: type[WeightOnlyLinear], inputs: int, outputs: int) -> None:
    torch.manual_seed(outputs)
    linear = nn.Linear(inputs, outputs)
    packed = kind(linear)
    for rows in (1, 3, 8, 9, 20, 70):
        x = torch.randn(rows, inputs)
        expected = F.linear(x, packed.weight(), linear.bias)
        # Half a step of 16 bits for each activation.
        most = packed.weight().abs().sum(dim=1) * x.abs().amax(dim=1, keepdim=True) / 65_534
        assert bool(((packed(x) - expected).abs() <= most + 1e-5).all())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_shape_type_and_bias_are_those_of_the_plain_layer(kind: type[WeightOnlyLinear]) -> None:
    for bias in (True, False):
        linear = nn.Linear(96, 70, bias=bias)
        packed = copy.deepcopy(kind(linear))
        x = torch.randn(3, 5, 96)
        assert packed(x).shape == (3, 5, 70)
        assert packed(x.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(packed(x.transpose(0, 1)), packed(x).transpose(0, 1), rtol=1e-4, atol=1e-4)
        assert (packed.bias is None) == (not bias)
        zeros = packed(torch.zeros(2, 96))
        torch.testing.assert_close(zeros, torch.zeros(2, 70) if linear.bias is None else linear.bias.expand(2, 70))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_model_that_changes_its_type_keeps_the_bits(kind: type[WeightOnlyLinear]) -> None:
    packed = kind(nn.Linear(96, 70))
    x = torch.randn(3, 96)
    expected = packed(x)
    for change in (nn.Module.float, nn.Module.bfloat16, nn.Module.double):
        torch.testing.assert_close(change(nn.Sequential(packed))(x), expected)


@torch.no_grad()
def test_8_bits_round_each_output_to_127_steps() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(200, 50)
    half = linear.weight.abs().amax(dim=1, keepdim=True) / 254
    off = (Int8Linear(linear).weight() - linear.weight).abs()
    assert bool((off <= half * 1.01).all())
    assert float(off.mean()) == pytest.approx(float(half.mean()) / 2, rel=0.05)


@torch.no_grad()
def test_4_bits_lose_a_fifteenth_of_a_uniform_variable() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 130)
    off = float((Int4Linear(linear).weight() - linear.weight).std() / linear.weight.std())
    assert 0.05 < off < 0.09  # steps of 1/15 of the range: 2 · sqrt(3) / 15 / sqrt(12)


@torch.no_grad()
def test_4_bits_search_beats_plain_rounding_of_the_range() -> None:
    """Weights with a few far ones are what narrowing the range is for."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 64, bias=False)
    linear.weight.copy_(torch.distributions.StudentT(4.0).sample(linear.weight.shape))
    grouped = linear.weight.detach().view(64, -1, 64)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    step = (high - low) / 15
    plain = ((grouped - low) / step).round() * step + low
    error = float((Int4Linear(linear).weight() - linear.weight).square().mean())
    assert error < 0.97 * float((plain - grouped).square().mean())
