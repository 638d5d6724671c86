"""LoRA by surgery: which layers it adapts, its parameters and scale, merging and taking back exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_lora import model, stirred, tokens
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.models.base import parameter_count
from underhood.nn.lora import LoRALinear, LoRASpec, _Adapted, fold, lora_layers, merge, unmerge
from underhood.nn.qlora_linear import QuantizedLinear, quantize_linears
from underhood.nn.softcap import apply_softcap
from underhood.nn.surgery import name_matches, replace_modules


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("blocks.0.mixer.query", "query", True),
        ("blocks.0.mixer.query", "mixer.*", True),
        ("blocks.0.mixer.query", "blocks.0.*", True),
        ("blocks.0.mixer.query", "blocks.1.*", False),
        ("blocks.10.mixer.query", "blocks.1.*", False),
        ("blocks.0.mixer.query_norm", "query", False),
        ("blocks.3.mixer.query", r"re:blocks\.[0-3]\..*query", True),
        ("blocks.4.mixer.query", r"re:blocks\.[0-3]\..*query", False),
        ("blocks.3.mixer.query", "re:query", False),
    ],
)
def test_name_matches_globs_and_regular_expressions(name: str, pattern: str, fits: bool):
    assert name_matches(name, pattern) is fits


def test_replace_modules_names_what_it_replaced_and_suggests():
    built = model()
    names = replace_modules(built, "gate", lambda _, layer: nn.Sequential(layer), nn.Linear)
    assert names == ["blocks.0.feedforward.gate", "blocks.1.feedforward.gate"]
    with pytest.raises(UserError, match="Did you mean query"):
        replace_modules(built, "qury", lambda _, layer: layer, nn.Linear)


def test_lora_starts_as_the_model_it_adapts_and_trains_only_the_companions():
    built = model()
    before = built(tokens()).detach()
    names = LoRASpec(rank=4).apply(built)
    assert len(names) == 2 * 7
    torch.testing.assert_close(built(tokens()), before, rtol=1e-6, atol=1e-6)
    learning = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert learning == {f"{name}.lora_{piece}" for name in names for piece in "AB"}
    built(tokens()).sum().backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in built.parameters())


def test_lora_parameter_count_is_rank_times_inputs_and_outputs():
    built = model()
    before = parameter_count(built)
    LoRASpec(rank=4, targets=("query",)).apply(built)
    assert parameter_count(built) - before == 2 * 4 * (32 + 32)


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_scale_follows_the_rank(rslora: bool):
    assert LoRASpec(rank=16, alpha=8, rslora=rslora).scale == (2.0 if rslora else 0.5)


def test_fused_lora_matches_ordinary_operations_in_float64():
    """The in-place forward and the hand-written backward against autograd on the formula, and finite differences."""
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(6, 5).double()
    layer = LoRALinear(base, LoRASpec(rank=2, alpha=3), generator).double()
    base.requires_grad_(False)
    layer.lora_B.data.normal_(generator=generator)
    x = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator, requires_grad=True)

    def plain(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return F.linear(x, base.weight + layer.scale * b @ a, base.bias)

    torch.testing.assert_close(layer(x), plain(x, layer.lora_A, layer.lora_B))
    weights = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((layer(x) * weights).sum(), [x, layer.lora_A, layer.lora_B])
    theirs = torch.autograd.grad(
        (plain(x, layer.lora_A, layer.lora_B) * weights).sum(), [x, layer.lora_A, layer.lora_B]
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.autograd.gradcheck(layer, (x,))


def test_lora_dropout_touches_the_companion_only_and_only_in_training():
    built = model()
    LoRASpec(rank=4, dropout=0.5).apply(built)
    stirred(built)
    layer = next(layer for _, layer in lora_layers(built))
    x = torch.ones(4000, layer.in_features)
    built.eval()
    exact = layer(x)
    built.train()
    drawn = layer(x)
    assert not torch.equal(drawn, layer(x))
    torch.testing.assert_close(drawn.mean(0), exact.mean(0), rtol=0.2, atol=0.05)
    layer.lora_B.data.zero_()
    torch.testing.assert_close(layer(x), layer.base(x))


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_merge_is_the_same_function_and_unmerge_restores_bit_for_bit(bits: Any):
    built = model()
    if bits:
        quantize_linears(built, bits, group=16)
    LoRASpec(rank=4).apply(built)
    stirred(built)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    adapted = built(tokens()).detach()
    merge(built)
    merged = built(tokens()).detach()
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for _, layer in lora_layers(built):
            layer.lora_A.add_(1)  # merged, the companions are out of use
    assert torch.equal(built(tokens()), merged)
    with torch.no_grad():
        for name, layer in lora_layers(built):
            layer.lora_A.copy_(before[f"{name}.lora_A"])
    unmerge(built)
    after = built.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(built(tokens()), adapted)


def test_adding_and_subtracting_instead_does_not_restore_the_weights():
    """The ablation: why the base is kept while merged."""
    layer = next(module for module in model().modules() if isinstance(module, nn.Linear))
    difference = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(layer.weight + difference - difference, layer.weight)


@pytest.mark.parametrize("bits", [None, 8])
def test_fold_leaves_a_plain_model_of_the_same_shape(bits: Any):
    built, fresh = model(), model(seed=5)
    if bits:
        quantize_linears(built, bits)
    LoRASpec(rank=4).apply(built)
    stirred(built)
    adapted = built(tokens()).detach()
    fold(built)
    assert not any(isinstance(module, (LoRALinear, QuantizedLinear)) for module in built.modules())
    fresh.load_state_dict(built.state_dict())
    torch.testing.assert_close(fresh(tokens()), adapted, rtol=1e-4, atol=1e-5)


def test_lora_refuses_shared_weights_and_a_second_time():
    built = model(tied=True)
    with pytest.raises(UserError, match=r"unembed shares its weight with embed"):
        LoRASpec(targets=("unembed",)).apply(built)
    assert all(parameter.requires_grad for parameter in built.parameters()), "a refusal leaves the model alone"
    LoRASpec().apply(built)
    with pytest.raises(UserError, match="already"):
        LoRASpec().apply(built)


@pytest.mark.parametrize("tied", [False, True])
def test_surgery_passes_a_capped_unembedding_by(tied: bool):
    """Gemma 2's caps its scores, which no companion and no quantised layer in its place would do."""
    built = model(tied=tied, logit_softcap=0.5)
    with torch.no_grad():
        for parameter in built.unembed.parameters():
            parameter.mul_(30)
    capped = built.unembed
    for change in (lambda: quantize_linears(built, 8, targets=("*",)), lambda: LoRASpec(targets=("*",)).apply(built)):
        changed = change()
        assert changed
        assert all(name.startswith("blocks.") for name in changed)
        assert built.unembed is capped
        with torch.no_grad():
            torch.testing.assert_close(
                built(tokens()), apply_softcap(built.hidden_states(tokens()) @ capped.weight.T, 0.5)
            )
            assert 0.4 < float(built(tokens()).abs().max()) <= 0.5
    fold(built)
    for refused in (
        lambda: LoRASpec(targets=("unembed",)).apply(built),
        lambda: quantize_linears(built, 4, targets=("unembed",)),
    ):
        with pytest.raises(UserError, match=r"no .*layer of the model is called 'unembed'"):
            refused()


@pytest.mark.parametrize("bias", [False, True])
def test_fused_lora_matches_ordinary_operations_under_autocast(bias: bool, monkeypatch: pytest.MonkeyPatch):
    layer = LoRALinear(nn.Linear(24, 40, bias=bias), LoRASpec(rank=4), torch.Generator().manual_seed(0))
    layer.requires_grad_(False)
    learning = [layer.lora_A.requires_grad_(), nn.init.normal_(layer.lora_B).requires_grad_()]
    x = torch.randn(3, 7, 24, requires_grad=True)

    def outcome() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        return [y.float(), *torch.autograd.grad(y.float().square().sum(), [x, *learning])]

    used: list[int] = []
    real = _Adapted.forward
    monkeypatch.setattr(_Adapted, "forward", staticmethod(lambda *given: (used.append(1), real(*given))[1]))
    fused = outcome()
    assert used == [1]
    monkeypatch.undo()
    precise = layer.base(x) + F.linear(F.linear(x, layer.lora_A), layer.lora_B) * layer.scale
    exact = [precise, *torch.autograd.grad(precise.square().sum(), [x, *learning])]
    for ours, expected in zip(fused, exact, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - expected).detach().norm() / expected.detach().norm()) < 0.02  # bf16 keeps 8 bits


def test_no_gradient_is_worked_out_below_the_lowest_adapter():
    built = model()
    LoRASpec(rank=4, targets=("blocks.1.*",)).apply(built)
    nodes: list[bool] = []
    hooks = [block.register_forward_hook(lambda *given: nodes.append(given[2].requires_grad)) for block in built.blocks]
    built(tokens()).sum().backward()
    for hook in hooks:
        hook.remove()
    assert nodes == [False, True]
