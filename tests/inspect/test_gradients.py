"""Gradients at every site of every family, beside finite differences in double precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from traced import IDS, as_loaded, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.infer.optimize import optimize_for_inference
from underhood.inspect.gradients import gradients
from underhood.inspect.sites import Hookable, sites_of
from underhood.inspect.target import Target

FAMILIES = ["gpt2", "llama2", "mistral", "mixtral", "qwen3", "gemma2"]
TARGET = Target(token=40, against=7)


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    model = opened(request.param, tmp_path_factory.mktemp(request.param))[0]
    model.decoder.double()
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened("llama2", tmp_path_factory.mktemp("llama"))[0]


def score_with(loaded: LoadedModel, hook: Hookable, added: torch.Tensor) -> float:
    """The target with something added to a site, by a plain hook."""
    handle = (
        hook.module.register_forward_hook(lambda _m, _i, output: output + added.view_as(output))
        if hook.side == "output"
        else hook.module.register_forward_pre_hook(lambda _m, i: (i[0] + added.view_as(i[0]), *i[1:]))
    )
    try:
        logits_V = loaded.decoder(torch.tensor([IDS]))[0, -1]
    finally:
        handle.remove()
    return float(logits_V[40] - logits_V[7])


def is_routed(loaded: LoadedModel) -> bool:
    """Whether it chooses experts, whose weights are worked out in single precision."""
    return "router.0" in sites_of(loaded.decoder)


def value_at(loaded: LoadedModel, hook: Hookable) -> torch.Tensor:
    """A site's value as its hook sees it."""
    values: list[torch.Tensor] = []
    handle = (
        hook.module.register_forward_hook(lambda _m, _i, output: values.append(output.detach()))
        if hook.side == "output"
        else hook.module.register_forward_pre_hook(lambda _m, inputs: values.append(inputs[0].detach()))
    )
    loaded.decoder(torch.tensor([IDS]))
    handle.remove()
    return values[0]


def test_gradients_are_finite_differences_at_every_site(loaded: LoadedModel):
    sites = [site for site in sites_of(loaded.decoder) if site != "logits"]
    slopes = gradients(loaded, IDS, TARGET, sites)
    for site, hook in sites_of(loaded.decoder).items():
        if site == "logits":
            continue
        raw = value_at(loaded, hook)
        direction = torch.randn(raw.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        step = 1e-3 if is_routed(loaded) else 1e-5
        ends = [score_with(loaded, hook, sign * step * direction) for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        gradient, value = slopes[site], slopes.trace[site]
        if gradient.shape != direction.shape[1:] and gradient.ndim == 3 and direction.ndim == 3:
            direction = direction[0].unflatten(-1, (len(gradient), -1)).transpose(0, 1)
        assert gradient.shape == value.shape
        ours = float((gradient * direction.reshape(gradient.shape)).sum())
        assert ours == pytest.approx(expected, rel=1e-3, abs=1e-5), site


def test_a_score_is_the_model_s_own(loaded: LoadedModel):
    logits_TV = loaded.decoder(torch.tensor([IDS]))[0]
    assert gradients(loaded, IDS, Target(token=40)).score == pytest.approx(float(logits_TV[-1, 40]), abs=1e-5)
    logprob = gradients(loaded, IDS, Target(token=40, logprob=True, position=4))
    assert logprob.score == pytest.approx(float(logits_TV[4].log_softmax(dim=-1)[40]), abs=1e-5)
    assert len(logprob.trace.ids) == 5


def test_gradients_leave_the_model_as_it_was(llama: LoadedModel):
    before = llama.decoder(torch.tensor([IDS]))
    gradients(llama, IDS, TARGET, ["residual", "heads"])
    assert torch.equal(llama.decoder(torch.tensor([IDS])), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.decoder.modules())
    assert all(parameter.grad is None for parameter in llama.decoder.parameters())


def test_packed_weights_are_named_before_a_gradient_is_lost(llama: LoadedModel, tmp_path: Path):
    packed = as_loaded(optimize_for_inference(llama.decoder, "int8"), tmp_path)
    with pytest.raises(UserError, match=r"packed or compiled layers \(.*Open it with underhood.load"):
        gradients(packed, IDS, TARGET)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(token=120), "no token 120"),
        (Target(token=4, against=4), "compared with itself"),
        (Target(token=4, position=12), "the prompt has no token 12"),
    ],
)
def test_impossible_targets_are_explained(target: Target, message: str, llama: LoadedModel):
    with pytest.raises(UserError, match=message):
        gradients(llama, IDS, target)


def test_a_limit_holds_for_gradients_too(llama: LoadedModel):
    with pytest.raises(UserError, match="allow more with limit_mb"):
        gradients(llama, IDS, TARGET, ["residual"], limit_mb=1e-6)
