"""The transposed product against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from underhood.nn.fewrows import FewRowsLinear, for_few_rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 3), (1, 64), (2, 70), (1, 300), (16,)], ids=str)
def test_few_rows_linear_matches_the_plain_one(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 10, bias=bias)
    x = torch.randn(*shape, 24)
    with torch.no_grad():
        torch.testing.assert_close(FewRowsLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-6)


def test_few_rows_results_follow_each_other_without_a_copy() -> None:
    first, second = FewRowsLinear(nn.Linear(24, 10)), FewRowsLinear(nn.Linear(10, 24))
    x = torch.randn(1, 6, 24)
    with torch.no_grad():
        between = first(x)
        assert between[0].t().is_contiguous()  # the transpose that the next product wants
        torch.testing.assert_close(second(between), nn.functional.linear(between, second.weight, second.bias))


def test_for_few_rows_replaces_plain_layers_and_shares_their_weights() -> None:
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Special(4, 4))
    weight = model[0].weight
    for_few_rows(model, targets=("*",))
    assert isinstance(model[0], FewRowsLinear)
    assert model[0].weight is weight
    assert type(model[1]) is Special
