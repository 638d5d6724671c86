"""The planner: its arithmetic against counts and closed forms, its choices against the budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from underhood.core.config import from_json, to_json
from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.data.batch import Batch
from underhood.models.decoder import qwen3_shaped
from underhood.train import plan as planner
from underhood.train.hardware import Hardware, measure_hardware
from underhood.train.loss import next_token_loss
from underhood.train.optim import MuonAdamWSpec
from underhood.train.plan import SIZES, ModelSize, Plan, check_overrides, choose_size, make_plan, training_flops
from underhood.train.plan_overrides import PlanOverrides


def _hardware(flops: float = 1e11, dtype: str = "float32") -> Hardware:
    return Hardware(device=Device(name="cpu", dtype=dtype), flops=flops, read_bytes=1e10)


def test_training_flops_match_torch_flop_counter():
    """Equal to what torch counts for a real step, but for attention: torch counts the masked half too."""
    spec = qwen3_shaped(vocab_size=96, context=32, width=64, layers=2, heads=2)
    model = spec.initialize(seed=0)
    tokens = torch.randint(96, (3, 33), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    with FlopCounterMode(display=False) as counter:
        next_token_loss(model, batch).backward()
    dense = 6 * (sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and n != "embed.weight"))
    attention = 2 * 6 * 64 * 32  # layers · 12 · H · K · T / 2
    assert training_flops(spec) == dense + attention
    # forward q·k and a·v are 4·T·HK per layer and token uncausal; the backward pass recomputes and is counted as 2.5 ×
    products = sum(n for name, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(name))
    assert products / batch.tokens.numel() == dense


def _steady_machine(flops: float):
    """Tokens per second of a size on a machine that reaches `flops` whatever the size."""
    return lambda size: flops / training_flops(size.spec(4096))


def test_choose_shape_grows_with_time_and_machine():
    sizes = [choose_size(seconds, _steady_machine(5e10), 4096).width for seconds in (1, 60, 600, 6000, 60_000_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SIZES[0].width
    assert sizes[-1] == SIZES[-1].width
    assert choose_size(60, _steady_machine(5e14), 4096).width > choose_size(60, _steady_machine(5e10), 4096).width


@settings(deadline=None)
@given(st.lists(st.floats(1e8, 1e15), min_size=len(SIZES), max_size=len(SIZES)), st.floats(1, 1e5))
def test_choose_shape_takes_only_a_rung_that_its_own_timing_affords(flops, seconds):
    """Whatever small steps promise, a size that turns out too slow when it is timed is not taken."""
    timed: dict[ModelSize, float] = {}

    def speed_of(size: ModelSize) -> float:
        timed[size] = flops[SIZES.index(size)] / training_flops(size.spec(4096))
        return timed[size]

    chosen = choose_size(seconds, speed_of, 4096)
    needed = planner.TOKENS_PER_PARAMETER * training_flops(chosen.spec(4096)) / 6
    assert chosen == SIZES[0] or seconds * timed[chosen] >= needed * (1 - 1e-9)


@pytest.fixture
def steady(monkeypatch):
    """A machine that trains exactly 10,000 tokens a second after the planner's discount."""
    monkeypatch.setattr(planner, "measure_speed", lambda *_: 10_000.0 / planner.SUSTAINED)


def _plan(**changes) -> Plan:
    usual = {
        "seconds": 300.0,
        "hardware": _hardware(),
        "optimizer": MuonAdamWSpec(),
        "vocab_size": 512,
        "overrides": PlanOverrides(),
        "sft_tokens": 10_000_000,
        "pairs": 1_000_000,
        "pair_tokens": 100,
    }
    return make_plan(**(usual | changes))


def test_plan_fills_the_budget_and_keeps_the_reserve(steady):
    plan = _plan(reserve=lambda speed: 200_000 / speed)
    assert plan.sft is not None
    assert plan.dpo is not None
    total = plan.pretrain.seconds + plan.sft.seconds + plan.dpo.seconds
    assert total == pytest.approx(280, rel=0.02)
    assert plan.pretrain.seconds == pytest.approx(280 * planner.SHARES["pretrain"], rel=0.02)
    assert plan.pretrain.tokens == pytest.approx(10_000 * plan.pretrain.seconds, rel=1e-6)


def test_plan_gives_pretraining_what_a_short_set_leaves_over(steady):
    short = _plan(sft_tokens=1_000)
    assert short.sft is not None
    assert short.sft.steps * short.sft.rows * short.sft.context <= planner.SFT_EPOCHS * 1_000 + 4096
    assert short.pretrain.steps > _plan().pretrain.steps


def test_plan_leaves_out_stages_without_data(steady):
    plan = _plan(sft_tokens=0, pairs=0)
    assert (plan.sft, plan.dpo) == (None, None)
    assert plan.pretrain.seconds == pytest.approx(300, rel=0.02)


def test_plan_obeys_overrides(steady):
    plan = _plan(
        overrides=PlanOverrides(width=64, layers=2, context=32, rows=3, pretrain_steps=7, sft_steps=5, dpo_steps=2)
    )
    assert plan.sft is not None
    assert plan.dpo is not None
    assert (plan.model.width, plan.model.layers, plan.model.context) == (64, 2, 32)
    assert (plan.pretrain.steps, plan.pretrain.rows, plan.sft.steps, plan.dpo.steps) == (7, 3, 5, 2)


def test_plan_survives_json(steady):
    plan = _plan()
    assert from_json(Plan, to_json(plan)) == plan


def test_overrides_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="proportions"):
        check_overrides(PlanOverrides(width=65, heads=4), 512)


def test_training_always_gets_its_least_share(steady):
    plan = _plan(seconds=10.0, reserve=lambda speed: 1e6)
    assert plan.pretrain.seconds > 0
    assert plan.pretrain.steps >= 1


def test_measured_hardware_is_plausible_and_obeys_dtype():
    found = measure_hardware("cpu", dtype="float32", seconds=0.02)
    assert found.device == Device(name="cpu", dtype="float32")
    assert 1e8 < found.flops < 1e15
    assert 1e8 < found.read_bytes < 1e13
    assert measure_hardware("cpu", dtype="bfloat16", seconds=0.02).device.dtype == "bfloat16"
