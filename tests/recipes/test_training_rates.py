"""Every learning rate of a recipe reaches the parameters that it is named for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.gpt2 import gpt2_shaped
from underhood.models.ngram import NGramSpec
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.pretrain import PretrainSettings, initialize_model
from underhood.recipes.stages.registry import get_stage
from underhood.recipes.training import optimizer_spec, stage_optimizer, stage_schedule

RATES = {"matrix_lr": "blocks.0.mixer.query.weight", "lr": "embed.weight", "unembed_lr": "unembed.weight"}


def _moved(scale: float = 1.0, **rates: float) -> dict[str, float]:
    """How far the parameters that `RATES` names go in one step of these rates."""
    model: Decoder = qwen3_shaped(vocab_size=32, context_length=8, d_model=16, layers=1, heads=1).initialize(seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer_spec(BuildSpec(**rates), Device(name="cpu", dtype="float32"), scale).build(model).step()
    after = dict(model.named_parameters())
    return {name: float((after[name] - before[name]).detach().norm()) for name in RATES.values()}


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_moves_its_own_parameters_and_no_others(rate: str):
    usual, raised = _moved(), _moved(**{rate: 3 * getattr(BuildSpec(), rate)})
    for name in RATES.values():
        assert raised[name] == pytest.approx((3 if name == RATES[rate] else 1) * usual[name], rel=1e-3)


def test_a_stage_scales_all_rates_alike():
    usual, scaled = _moved(), _moved(scale=0.1)
    assert scaled == pytest.approx({name: 0.1 * far for name, far in usual.items()}, rel=1e-3)


def test_gpt2s_recipe_reaches_first_weights_optimizer_and_schedule():
    spec = gpt2_shaped(vocab_size=300, context_length=8, d_model=64, layers=2, heads=2)
    settings = PretrainSettings(recipe="gpt2", lr_scale=2.0)
    model = initialize_model(spec, settings, seed=0)
    assert float(model.embed.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.blocks[0].feedforward.down.weight.std()) == pytest.approx(0.01, rel=0.05)
    inputs: Any = SimpleNamespace(settings=settings, model=model, device=Device(name="cpu", dtype="float32"))
    stage = get_stage("pretrain")
    optimizer = stage_optimizer(BuildSpec(), inputs, None).build(model)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(group["lr"] == pytest.approx(2 * 6e-4) for group in optimizer.param_groups)
    schedule = stage_schedule(stage, inputs)
    assert schedule.lr_factor(999, 1000) == pytest.approx(0.1, abs=1e-3)
    usual: Any = SimpleNamespace(settings=PretrainSettings(), model=model, device=inputs.device)
    assert schedule != stage_schedule(stage, usual)


def test_gpt2s_recipe_is_for_decoders():
    with pytest.raises(UserError, match="decoders"):
        initialize_model(NGramSpec(vocab_size=300, order=3), PretrainSettings(recipe="gpt2"), seed=0)
