"""The learning rate's course: exact where it has a closed form, and never where it should not be."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.train.schedule import NoamSpec, ScheduleSpec, noam

schedules = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["linear", "cosine"])).map(
    lambda v: ScheduleSpec(warmup=v[0] * (1 - v[1]), decay=v[1], floor=v[2], shape=v[3])
)


def course(spec: ScheduleSpec, steps: int) -> list[float]:
    return [spec.lr_factor(step, steps) for step in range(steps)]


def test_schedule_climbs_holds_and_falls_by_the_closed_form():
    rates = course(ScheduleSpec(warmup=0.1, decay=0.4), 100)
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:60] == [1.0] * 50
    assert rates[60:] == pytest.approx([(40 - i) / 41 for i in range(40)])


def test_schedule_cosine_is_half_a_wave():
    rates = course(ScheduleSpec(warmup=0, decay=1, floor=0.1, shape="cosine"), 99)
    expected = [0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * (i + 1) / 100)) for i in range(99)]
    assert rates == pytest.approx(expected)
    assert rates[49] == pytest.approx(0.55), "half way down at half time"


def test_schedule_linear_decay_has_the_area_of_a_triangle():
    """Nothing but decay: the rates sum to half of what a constant rate would."""
    assert sum(course(ScheduleSpec(warmup=0, decay=1), 1000)) == pytest.approx(500, rel=1e-3)
    assert sum(course(ScheduleSpec(warmup=0.2, decay=0.5), 1000)) == pytest.approx(100 + 300 + 250, rel=2e-3)


def test_schedule_without_phases_is_constant():
    assert course(ScheduleSpec(warmup=0, decay=0), 7) == [1.0] * 7


@given(schedules, st.integers(1, 300))
def test_schedule_climbs_then_falls_within_its_bounds(spec: ScheduleSpec, steps: int):
    rates = course(spec, steps)
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    begins_to_fall = steps - spec.decay * steps
    assert all(rate >= spec.floor - 1e-12 for step, rate in enumerate(rates) if step >= begins_to_fall)


@pytest.mark.parametrize(("warmup", "decay"), [(-0.1, 0.5), (0.5, -0.1), (1.1, 0), (0, 1.1), (0.6, 0.5)])
def test_schedule_refuses_shares_that_are_none(warmup: float, decay: float):
    with pytest.raises(ValueError, match="shares of the run"):
        ScheduleSpec(warmup=warmup, decay=decay)


def test_noam_climbs_to_its_peak_at_the_end_of_the_warmup():
    rates = [noam(step, 512) for step in range(1, 20_001)]
    assert rates.index(max(rates)) == 3999
    assert max(rates) == pytest.approx(1 / math.sqrt(512 * 4000))
    assert rates[999] == pytest.approx(max(rates) / 4)
    assert rates[15_999] == pytest.approx(max(rates) / 2)


def test_noam_spec_times_its_peak_is_equation_3_of_the_paper():
    spec = NoamSpec(warmup=400)
    rates = [spec.peak(512) * spec.lr_factor(step, 2000) for step in range(2000)]
    assert rates == pytest.approx([512**-0.5 * min(n**-0.5, n * 400**-1.5) for n in range(1, 2001)])
    assert spec.decay_start(2000) == rates.index(max(rates)) + 1
