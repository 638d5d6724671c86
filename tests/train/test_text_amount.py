"""Vocabulary, passes and dropout by the amount of text: fixed points, monotony, and the plan of a small text."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from underhood.core.device import Device
from underhood.train.hardware import Hardware
from underhood.train.optim import MuonAdamWSpec
from underhood.train.plan import LEAST_UPDATES, SIZES, Plan, StageRequest, choose_size, make_plan, plan_stage
from underhood.train.plan_overrides import PlanOverrides
from underhood.train.text_amount import fitting_dropout, fitting_vocabulary, most_passes

AMOUNTS = st.integers(20_000, 10**9)


def test_amounts_that_were_measured_and_the_documentation_keeps_its_vocabulary():
    assert [fitting_vocabulary(size) for size in (80_000, 400_000, 2_000_000, 2_400_000)] == [512, 1024, 2048, 2048]
    assert [most_passes(size) for size in (80_000, 320_000)] == [6.0, 12.0]
    assert [fitting_dropout(size) for size in (20_000, 80_000, 400_000, 2_000_000)] == [0.2, 0.2, 0.1, 0.0]


@given(AMOUNTS, AMOUNTS)
def test_more_text_never_has_a_smaller_vocabulary_fewer_passes_or_more_dropout(first: int, second: int):
    less, more = sorted((first, second))
    assert fitting_vocabulary(less) <= fitting_vocabulary(more)
    assert most_passes(less) <= most_passes(more)
    assert fitting_dropout(less) >= fitting_dropout(more)


def small_plan(monkeypatch, tokens: int, seconds: float = 600.0) -> Plan:
    monkeypatch.setattr("underhood.train.plan.measure_speed", lambda *_: 20_000.0)
    hardware = Hardware(device=Device(name="cpu"), flops=1e11, read_bytes=1e10)
    stages = [
        StageRequest(stage="pretrain", share=1.0, unique_tokens=tokens, passes=6.0, dropout=0.2),
        StageRequest(stage="sft", share=1.0, tokens=50_000, epochs=6.0),
    ]
    return make_plan(
        seconds=seconds,
        hardware=hardware,
        optimizer=MuonAdamWSpec(),
        vocab_size=512,
        overrides=PlanOverrides(),
        stages=stages,
    )


def test_plan_of_a_small_text_ends_with_its_passes_and_says_so(monkeypatch):
    plan = small_plan(monkeypatch, 40_000)
    first = plan.stages[0]
    assert first.tokens <= 6.0 * 40_000 + first.batch_size * first.context_length
    assert (first.max_steps, first.dropout) == (first.steps, 0.2)
    assert first.passes == first.tokens / 40_000
    assert first.allowed is not None
    assert first.allowed > 2 * first.seconds
    assert plan.model.d_model == SIZES[0].d_model
    assert "The text is small" in plan.reason
    assert "reads it 6.0 times, with dropout 0.2" in plan.reason


def test_plan_of_a_tiny_text_has_steps_enough_to_learn_something(monkeypatch):
    first = small_plan(monkeypatch, 1_500).stages[0]
    assert first.steps == first.max_steps == LEAST_UPDATES
    assert first.passes == first.tokens / 1_500


def test_plan_of_a_large_text_is_as_if_nothing_were_known_of_its_amount(monkeypatch):
    plan = small_plan(monkeypatch, 10**9)
    first = plan.stages[0]
    assert (first.dropout, first.passes, first.allowed) == (0.0, None, None)
    assert "small" not in plan.reason
    request = StageRequest(stage="pretrain", share=1.0)
    unlimited = plan_stage(request, 300.0, batch_size=8, context_length=256, speed=20_000.0)
    limited = StageRequest(stage="pretrain", share=1.0, unique_tokens=10**9, passes=6.0)
    assert plan_stage(limited, 300.0, batch_size=8, context_length=256, speed=20_000.0).steps == unlimited.steps


def test_size_is_bounded_by_what_the_text_is_worth():
    def speed_of(_: object) -> float:
        return 1e9

    assert choose_size(1e6, speed_of, 512) == SIZES[-1]
    assert choose_size(1e6, speed_of, 512, most_tokens=200_000) == SIZES[0]
    assert choose_size(1e6, speed_of, 512, most_tokens=math.inf) == SIZES[-1]
