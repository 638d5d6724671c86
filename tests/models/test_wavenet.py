"""The WaveNet-style model and makemore's multilayer perceptrons: torch's dilated convolutions, published counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from underhood.models.base import parameter_count
from underhood.models.nplm import NPLMSpec
from underhood.models.wavenet import WaveNet, WaveNetSpec
from underhood.nn.batch_norm import BatchNormSpec
from underhood.nn.norm import LayerNormSpec

V = 27


def lively(model: nn.Module) -> nn.Module:
    """With weights and running statistics that are nowhere 0 or 1, in float64."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise * 0.4)
    return model.eval().double()


def as_convolutions(model: WaveNet, x_BDT: Tensor) -> Tensor:
    """The layers by torch's own convolutions, with zeros before the text."""
    for layer in model.layers:
        W_oi2 = layer.pair.weight.unflatten(1, (2, -1)).permute(0, 2, 1)
        dilation = 2**layer.layer
        padded = nn.functional.pad(x_BDT, (dilation, 0))
        z_BDT = nn.functional.conv1d(padded, W_oi2, layer.pair.bias, dilation=dilation)
        norm = layer.norm
        if isinstance(norm, nn.BatchNorm1d):
            statistics = norm.running_mean, norm.running_var
            z_BDT = nn.functional.batch_norm(z_BDT, *statistics, norm.weight, norm.bias, eps=norm.eps)
        elif isinstance(norm, nn.LayerNorm):
            z_BDT = norm(z_BDT.mT).mT
        if model.spec.gated:
            half = z_BDT.shape[1] // 2
            h_BDT = z_BDT[:, :half].tanh() * z_BDT[:, half:].sigmoid()
        else:
            h_BDT = z_BDT.tanh()
        x_BDT = h_BDT + x_BDT if model.spec.residual and h_BDT.shape == x_BDT.shape else h_BDT
    return x_BDT


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": BatchNormSpec()},
        {"norm": LayerNormSpec(), "gated": True, "residual": True},
        {"norm": None, "layers": 4, "embed_dim": 16, "residual": True},
    ],
)
def test_wavenet_matches_torchs_dilated_convolutions(changes: dict):
    model = lively(WaveNetSpec(**{"vocab_size": V, "embed_dim": 5, "d_model": 16} | changes).build())
    tokens = torch.randint(V, (3, 21))
    expected = as_convolutions(model, model.embed(tokens).mT).mT
    torch.testing.assert_close(model.hidden_states(tokens), expected, rtol=1e-10, atol=1e-10)


def test_wavenet_sees_two_to_the_layers_tokens():
    model = lively(WaveNetSpec(vocab_size=V, embed_dim=5, d_model=16, layers=3, norm=None).build())
    tokens = torch.randint(V, (1, 20))
    before = model(tokens)[0, -1]
    for back in range(20):
        changed = tokens.clone()
        changed[0, 19 - back] = (changed[0, 19 - back] + 1) % V
        assert torch.equal(model(changed)[0, -1], before) == (back >= 8), back


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        (NPLMSpec(vocab_size=V, order=4, d_model=10, hidden=200, direct=False), 11_897),
        (NPLMSpec(vocab_size=V, order=4, d_model=10, hidden=200, direct=False, norm=BatchNormSpec()), 12_097),
        (WaveNetSpec(vocab_size=V, embed_dim=24, d_model=128, layers=3, norm=BatchNormSpec()), 76_579),
    ],
)
def test_makemores_networks_have_the_published_number_of_parameters(spec: NPLMSpec | WaveNetSpec, published: int):
    assert parameter_count(spec.build()) == published


def test_batch_norm_matches_torch_and_estimates_the_variance_without_bias():
    ours, theirs = BatchNormSpec(momentum=0.3).build(6), nn.BatchNorm1d(6, momentum=0.3)
    x_BTD = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    torch.testing.assert_close(ours(x_BTD), theirs(x_BTD.mT).mT)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.running_var, 0.7 + 0.3 * x_BTD.flatten(0, 1).var(dim=0))
    torch.testing.assert_close(ours.eval()(x_BTD), theirs.eval()(x_BTD.mT).mT)


def test_deep_nplm_is_its_layers_one_after_the_other():
    spec = NPLMSpec(vocab_size=V, order=4, d_model=5, hidden=8, direct=False, layers=3, norm=BatchNormSpec())
    model = lively(spec.build())
    tokens = torch.randint(V, (1, 9))
    h = model.embed(tokens)[0].unfold(0, 3, 1).mT.flatten(1)  # from the third token on
    for linear, norm in zip((model.hidden, *model.deeper), model.norms, strict=True):
        z = h @ linear.weight.T
        h = ((z - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias).tanh()
    torch.testing.assert_close(model(tokens)[0, 2:], h @ model.unembed.weight.T + model.unembed.bias)


@pytest.mark.parametrize("norm", [None, LayerNormSpec(), BatchNormSpec()])
def test_fresh_wavenet_keeps_its_scale_and_scores_all_tokens_alike(norm):
    spec = WaveNetSpec(vocab_size=V, embed_dim=64, d_model=64, layers=6, norm=norm)
    model = spec.initialize(seed=1)
    tokens = torch.randint(V, (8, 100))
    assert model(tokens).abs().max() == 0
    assert 0.4 < model.hidden_states(tokens)[:, 64:].std() < 0.8
    again = spec.initialize(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_wavenet_names_a_mistake():
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        WaveNetSpec(vocab_size=V, layers=0)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        NPLMSpec(vocab_size=V, layers=0)
