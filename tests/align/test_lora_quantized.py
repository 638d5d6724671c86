"""Frozen bases in 8 and 4 bits: how far they round, that gradients pass, and that adapters learn on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.decoder import qwen3_shaped
from underhood.nn.lora import LoRASpec
from underhood.nn.qlora_linear import Bits, QuantizedLinear, quantize_linears
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss, next_token_loss_sum
from underhood.train.optim import AdamWSpec


def linear(rows: int = 24, columns: int = 128, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=bias)
    layer.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return layer


def test_int8_rounds_each_row_within_half_a_step():
    layer = linear()
    layer.weight.data[3] *= 100  # a loud row must not cost the others their precision
    layer.weight.data[5] = 0
    actual = QuantizedLinear(layer, 8).weight()
    step = layer.weight.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((actual - layer.weight).abs() <= step / 2 * 1.001 + 1e-9).all())
    assert torch.equal(actual[5], layer.weight[5])


@pytest.mark.parametrize("group", [32, 64])
def test_int4_rounds_each_group_within_a_step(group: int):
    layer = linear()
    layer.weight.data[:, :group] *= 50
    layer.weight.data[0, group:] = layer.weight.data[0, group:].abs() + 1  # a group without a zero
    actual = QuantizedLinear(layer, 4, group=group).weight()
    grouped = layer.weight.unflatten(1, (-1, group))
    span = grouped.amax(-1, keepdim=True).clamp(min=0) - grouped.amin(-1, keepdim=True).clamp(max=0)
    error = (actual - layer.weight).abs().unflatten(1, (-1, group))
    assert bool((error <= span / 15 * 1.001).all())
    assert len(actual[0].unique()) <= 16 * 128 // group


def test_int4_keeps_zeros_and_groups_beat_whole_rows():
    layer = linear()
    layer.weight.data[:, 7::3] = 0
    actual = QuantizedLinear(layer, 4, group=32).weight()
    assert bool((actual[:, 7::3] == 0).all())
    layer.weight.data[:, 0] = 30  # an outlier costs its own group only
    errors = [(QuantizedLinear(layer, 4, group=group).weight() - layer.weight).square().mean() for group in (32, 128)]
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_layer_is_a_linear_layer_with_the_rounded_weight(bits: Bits):
    layer = QuantizedLinear(linear(), bits)
    x = torch.randn(2, 5, 128, requires_grad=True)
    plain = layer.widened()
    torch.testing.assert_close(layer(x), plain(x))
    weights = torch.randn(2, 5, 24)
    (mine,) = torch.autograd.grad((layer(x) * weights).sum(), x)
    (other,) = torch.autograd.grad((plain(x) * weights).sum(), x)
    torch.testing.assert_close(mine, other)
    assert not list(layer.parameters()), "nothing to train in it"


@pytest.mark.parametrize(("bits", "share"), [(8, 0.26), (4, 0.15)])
def test_quantized_layer_takes_its_share_of_the_memory_and_survives_saving(bits: Bits, share: float):
    layer = linear(256, 512, bias=False)
    small = QuantizedLinear(layer, bits)
    taken = sum(buffer.numel() * buffer.element_size() for buffer in small.buffers())
    assert taken <= share * layer.weight.numel() * 4
    again = QuantizedLinear(linear(256, 512, bias=False), bits)
    again.packed.zero_()
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.weight(), small.weight())


def test_int4_refuses_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of the group"):
        QuantizedLinear(linear(8, 100), 4, group=64)


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_learn_on_a_quantized_base_which_stays_as_it_is(bits: Bits):
    model = qwen3_shaped(vocab_size=20, context_length=8, d_model=32, layers=2, heads=2, d_ff=64).initialize(seed=0)
    model.unembed.weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    exact = model(torch.arange(8)[None]).detach()
    names = quantize_linears(model, bits, group=32)
    assert len(names) == 14
    assert F.cosine_similarity(model(torch.arange(8)[None]).detach().flatten(), exact.flatten(), dim=0) > 0.99
    packed = {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith("packed")}
    LoRASpec(rank=8).apply(model)
    row = torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(1))
    batch = Batch(row[:, :-1], row[:, 1:])
    before = float(next_token_loss(model, batch).detach())
    fit(
        model,
        lambda _: batch,
        next_token_loss_sum,
        AdamWSpec(lr=0.02, weight_decay=0).build(model),
        FitSpec(steps=60),
        stage="test",
        log=RunLog(None),
    )
    assert float(next_token_loss(model, batch).detach()) < before - 1
    now = dict(model.named_buffers())
    assert all(torch.equal(now[name.replace(".packed", ".base.packed")], kept) for name, kept in packed.items())
