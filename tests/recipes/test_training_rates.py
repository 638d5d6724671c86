"""Every learning rate of a recipe reaches the parameters that it is named for."""

from __future__ import annotations

import pytest
import torch

from underhood.core.device import Device
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.recipes.spec import BuildSpec
from underhood.recipes.training import optimizer_spec

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
