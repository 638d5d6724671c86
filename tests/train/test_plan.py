"""The planner: its arithmetic against counts and closed forms, its choices against the budget."""

from __future__ import annotations

from dataclasses import replace

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
from underhood.train import hardware
from underhood.train import plan as planner
from underhood.train.hardware import Hardware, faster_dtype, measure_hardware
from underhood.train.loss import next_token_loss
from underhood.train.optim import MuonAdamWSpec
from underhood.train.plan import (
    SIZES,
    ModelSize,
    Plan,
    StageRequest,
    check_overrides,
    choose_size,
    make_plan,
    training_flops,
)
from underhood.train.plan_overrides import PlanOverrides


def _hardware(flops: float = 1e11, dtype: str = "float32") -> Hardware:
    return Hardware(device=Device(name="cpu", dtype=dtype), flops=flops, read_bytes=1e10)


def test_training_flops_match_torch_flop_counter():
    """Equal to what torch counts for a real step, but for attention: torch counts the masked half too."""
    spec = qwen3_shaped(vocab_size=96, context_length=32, d_model=64, layers=2, heads=2)
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
    sizes = [choose_size(seconds, _steady_machine(5e10), 4096).d_model for seconds in (1, 60, 600, 6000, 60_000_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SIZES[0].d_model
    assert sizes[-1] == SIZES[-1].d_model
    assert choose_size(60, _steady_machine(5e14), 4096).d_model > choose_size(60, _steady_machine(5e10), 4096).d_model


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


def requests(sft_tokens: int = 10_000_000, pairs: int = 1_000_000, **steps: int) -> list[StageRequest]:
    """A stage of endless data, one whose data is read six times at most, and one of examples with rows of their own."""
    stages = [
        StageRequest(stage="first", share=0.62),
        StageRequest(stage="second", share=0.33, tokens=sft_tokens, epochs=6.0),
        StageRequest(stage="third", share=0.05, tokens=100 * pairs, row_tokens=100, epochs=1.0, cost=4 / 3),
    ]
    return [replace(request, steps=steps.get(request.stage)) for request in stages if request.tokens]


def _plan(**changes) -> Plan:
    usual = {
        "seconds": 300.0,
        "hardware": _hardware(),
        "optimizer": MuonAdamWSpec(),
        "vocab_size": 512,
        "overrides": PlanOverrides(),
        "stages": requests(),
    }
    return make_plan(**(usual | changes))


def test_plan_fills_the_budget_and_keeps_the_reserve(steady):
    plan = _plan(reserve=lambda speed: 200_000 / speed)
    first, second, third = plan.stages
    assert first.seconds + second.seconds + third.seconds == pytest.approx(280, rel=0.02)
    assert first.seconds == pytest.approx(280 * 0.62, rel=0.02)
    assert first.tokens == pytest.approx(10_000 * first.seconds, rel=1e-6)
    assert third.tokens * 4 / 3 == pytest.approx(10_000 * third.seconds, rel=1e-6)


def test_plan_gives_the_stage_of_endless_data_what_a_short_set_leaves_over(steady):
    short = _plan(stages=requests(sft_tokens=1_000))
    first, second, _ = short.stages
    assert second.steps * second.batch_size * second.context_length <= 6 * 1_000 + 4096
    assert first.steps > _plan().stages[0].steps


def test_plan_leaves_out_stages_that_are_not_requested(steady):
    plan = _plan(stages=requests(sft_tokens=0, pairs=0))
    assert plan.find("second") is None
    [only] = plan.stages
    assert only.seconds == pytest.approx(300, rel=0.02)


def test_plan_obeys_overrides_and_fixed_steps(steady):
    overrides = PlanOverrides(d_model=64, layers=2, context_length=32, batch_size=3)
    plan = _plan(overrides=overrides, stages=requests(first=7, second=5, third=2))
    assert (plan.model.d_model, plan.model.layers, plan.model.context_length) == (64, 2, 32)
    assert [stage.steps for stage in plan.stages] == [7, 5, 2]
    assert plan.stages[0].batch_size == 3


def test_plan_survives_json(steady):
    plan = _plan()
    assert from_json(Plan, to_json(plan)) == plan


def test_overrides_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="proportions"):
        check_overrides(PlanOverrides(d_model=65, heads=4), 512)


def test_training_always_gets_its_least_share(steady):
    plan = _plan(seconds=10.0, reserve=lambda speed: 1e6)
    assert plan.stages[0].seconds > 0
    assert plan.stages[0].steps >= 1


def test_measured_hardware_is_plausible_and_obeys_dtype():
    actual = measure_hardware("cpu", dtype="float32", seconds=0.02)
    assert actual.device == Device(name="cpu", dtype="float32")
    assert 1e8 < actual.flops < 1e15
    assert 1e8 < actual.read_bytes < 1e13
    assert measure_hardware("cpu", dtype="bfloat16", seconds=0.02).device.dtype == "bfloat16"


def test_bf16_is_not_timed_where_the_processor_is_known_to_emulate_it(monkeypatch: pytest.MonkeyPatch):
    timed: list[torch.dtype] = []

    def flops(device: Device, dtype: torch.dtype, seconds: float) -> float:
        timed.append(dtype)
        return 4e11 if dtype == torch.bfloat16 else 1e11

    monkeypatch.setattr(hardware, "_matmul_flops", flops)
    for native, expected in ((False, "float32"), (True, "bfloat16")):
        timed.clear()
        monkeypatch.setattr(hardware, "native_bfloat16", lambda name, native=native: native)
        assert measure_hardware("cpu", seconds=0.01).device.dtype == expected
        assert (torch.bfloat16 in timed) == native
        assert faster_dtype("cpu") == expected
