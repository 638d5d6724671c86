"""The transposed product against the plain one."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from torch import nn

from underhood.infer.optimize import optimize_for_inference
from underhood.kernels import small_batch_linear
from underhood.kernels.small_batch_linear import MATMUL_BATCH_MAX, SmallBatchLinear, use_small_batch_linears
from underhood.models.decoder import qwen3_shaped


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 5), (4, 3), (1, 24), (1, 25), (1, 64), (2, 70), (1, 300), (16,)], ids=str
)
def test_few_rows_linear_matches_the_plain_one(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 10 if bias else 384, bias=bias).requires_grad_(False)  # no block divides 10
    x = torch.randn(*shape, 24)
    multiply = Mock(wraps=small_batch_linear.multiply)
    monkeypatch.setattr(small_batch_linear, "multiply", multiply)
    torch.testing.assert_close(SmallBatchLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-6)
    assert multiply.called == (x.numel() // 24 <= MATMUL_BATCH_MAX)


@torch.no_grad()
def test_weights_that_lie_in_columns_are_put_in_rows() -> None:
    linear = nn.Linear(24, 16).requires_grad_(False)
    linear.weight = nn.Parameter(torch.randn(24, 16).t(), requires_grad=False)
    for count in (2, 30):
        x = torch.randn(count, 24)
        torch.testing.assert_close(SmallBatchLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-5)


def test_few_rows_results_follow_each_other_without_a_copy() -> None:
    first, second = SmallBatchLinear(nn.Linear(24, 10)), SmallBatchLinear(nn.Linear(10, 24))
    x = torch.randn(1, 30, 24)
    with torch.no_grad():
        between = first(x)
        assert between[0].t().is_contiguous()  # the transpose that the next product wants
        torch.testing.assert_close(second(between), nn.functional.linear(between, second.weight, second.bias))


def test_for_few_rows_replaces_plain_layers_and_shares_their_weights() -> None:
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Special(4, 4))
    weight = model[0].weight
    use_small_batch_linears(model, targets=("*",))
    assert isinstance(model[0], SmallBatchLinear)
    assert model[0].weight is weight
    assert type(model[1]) is Special


@pytest.mark.parametrize(
    ("rows", "tokens", "columns"), [(1, 30, True), (30, 1, True), (6, 5, True), (1, 24, False), (6, 4, False)]
)
@torch.no_grad()
def test_residual_stream_lies_in_columns_from_the_embedding_on(rows: int, tokens: int, columns: bool) -> None:
    plain = qwen3_shaped(vocab_size=20, context_length=32, d_model=16, layers=2, heads=2).initialize(seed=0)
    for name, parameter in plain.named_parameters():
        if name.endswith((".output.weight", ".down.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(rows * tokens).view(rows, tokens) % 20
    expected = plain.hidden_states(ids)
    ready = optimize_for_inference(plain)
    seen: list[torch.Tensor] = []
    for block in ready.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(ready.hidden_states(ids), expected, rtol=1e-5, atol=1e-5)
    assert [x.reshape(rows * tokens, -1).t().is_contiguous() for x in seen] == [columns] * 2
