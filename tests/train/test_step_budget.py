"""`--minutes` is kept on a machine whose speed changes, by decisions that can be replayed."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_training import counting_batch, digest, train

from underhood.core.runlog import RunLog, read_events
from underhood.data.batch import Batch
from underhood.train.loop import FitSpec
from underhood.train.schedule import ScheduleSpec
from underhood.train.step_budget import StepBudget, recorded_totals
from underhood.train.stopping import Interrupted

PRETRAIN, SFT = ScheduleSpec(warmup=0.02, decay=0.6), ScheduleSpec(warmup=0.05, decay=0.9)
SECONDS, PLANNED = 100.0, 80


class SimulatedMachine:
    """A clock that advances with every batch; `pace` says how many seconds a step takes at a given time."""

    def __init__(self, pace: Callable[[float], float]):
        self.pace, self.now = pace, 0.0

    def clock(self) -> float:
        return self.now

    def batches(self, step: int) -> Batch:
        self.now += self.pace(self.now)
        return counting_batch(step)


def steady(now: float) -> float:
    return SECONDS / PLANNED


def slower(factor: float, since: float = 0.5) -> Callable[[float], float]:
    return lambda now: steady(now) * (factor if now > since * SECONDS else 1.0)


def train_on(machine: SimulatedMachine, schedule: ScheduleSpec, folder: Path | None = None, **options: Any) -> Any:
    spec = FitSpec(steps=PLANNED, seconds=SECONDS, schedule=schedule, save_every=10, keep=99)
    log = RunLog(folder / "events.jsonl" if folder else None)
    checkpoints = folder / "checkpoints" if folder else None
    return train(checkpoints, spec, log=log, batches=machine.batches, clock=machine.clock, **options)


@pytest.mark.parametrize("schedule", [PRETRAIN, SFT], ids=["pretrain", "sft"])
@pytest.mark.parametrize("factor", [3.0, 1 / 3])
@pytest.mark.parametrize("since", [0.0, 0.3, 0.5, 0.9])
def test_training_takes_its_time_whatever_the_machine_does(schedule: ScheduleSpec, factor: float, since: float):
    machine = SimulatedMachine(slower(factor, since))
    _, result = train_on(machine, schedule)
    assert machine.now == pytest.approx(SECONDS, rel=0.1)
    assert (result.steps < PLANNED) == (factor > 1)


def test_a_fixed_number_of_steps_stays_fixed_and_misses_the_time():
    """The ablation: without the clock's decisions half the run at a third of the speed takes twice the time."""
    machine = SimulatedMachine(slower(3.0))
    _, result = train(None, FitSpec(steps=PLANNED), batches=machine.batches, clock=machine.clock)
    assert result.steps == PLANNED
    assert machine.now == pytest.approx(2 * SECONDS, rel=0.05)


def test_the_share_that_a_watcher_gets_is_one_after_the_last_step_only():
    """Also where the clock puts the last step off at the very end, because a few steps were quick."""
    machine = SimulatedMachine(lambda now: steady(now) * (0.05 if now > 0.97 * SECONDS else 1.0))
    watched: list[tuple[int, float]] = []
    _, result = train_on(machine, SFT, watch=lambda step, share: watched.append((step, share)))
    assert [step for step, share in watched if share >= 1] == [result.steps]
    assert [share for _, share in watched] == sorted(share for _, share in watched)


def test_a_steady_machine_follows_the_planned_schedule_to_the_letter():
    machine = SimulatedMachine(steady)
    clocked, _ = train_on(machine, PRETRAIN)
    fixed, _ = train(None, FitSpec(steps=PLANNED, schedule=PRETRAIN))
    assert digest(clocked) == digest(fixed)


def factors(pace: Callable[[float, int], float], planned: int = 1000) -> tuple[list[float], StepBudget]:
    budget, now = StepBudget(PRETRAIN, planned, SECONDS), 0.0
    lr_factors = []
    for step in itertools.count():
        if step >= budget.steps:
            return lr_factors, budget
        lr_factors.append(budget.lr_factor(step))
        now += pace(now, step)
        budget.update(step + 1, now)
    raise AssertionError


def test_the_decay_begins_when_the_clock_says_and_falls_to_zero_without_a_jump():
    course, budget = factors(lambda now, step: SECONDS / 1000 * (3 if now > 30 else 1))
    assert len(course) == pytest.approx(300 + 700 / 3, rel=0.02)
    assert budget.decay_step == pytest.approx(300 + 100 / 3, rel=0.05), "at 40 % of the time"
    assert all(factor == 1.0 for factor in course[30 : budget.decay_step])
    falls = [before - after for before, after in itertools.pairwise(course[budget.decay_step :])]
    assert all(0 <= fall < 3.5 / 600 for fall in falls)
    assert course[-1] < 0.01


def test_a_machine_that_was_busy_when_it_was_timed_gets_its_steps():
    course, _ = factors(lambda now, step: SECONDS / 1000, planned=10)
    assert len(course) == pytest.approx(1000, rel=0.02)
    assert max(course) == 1.0
    assert course[-1] < 0.01


def test_more_steps_than_the_data_are_worth_are_not_made():
    budget = StepBudget(SFT, 100, SECONDS, max_steps=120)
    for step in range(1, 60):
        budget.update(step, 0.3 * step)
    assert budget.steps == 120


@pytest.mark.parametrize("stop", [17, 26, 38])
def test_a_resumed_run_makes_the_recorded_decisions_and_ends_bit_identical(tmp_path: Path, stop: int):
    """The process is lost after its last checkpoint; what it decided until then is in the log."""
    whole, result = train_on(SimulatedMachine(slower(3.0, 0.3)), PRETRAIN, tmp_path / "whole")

    class Lost(Exception):
        pass

    def lose(done: int) -> None:
        if done == stop:
            raise Lost

    with pytest.raises(Lost):
        train_on(SimulatedMachine(slower(3.0, 0.3)), PRETRAIN, tmp_path / "lost", on_step=lose)
    saved = stop // 10 * 10
    decided, last = recorded_totals(tmp_path / "lost" / "events.jsonl", "test", saved)
    assert last == stop
    assert decided == {
        event["step"]: event["steps"]
        for event in read_events(tmp_path / "whole" / "events.jsonl")
        if event["kind"] == "schedule" and saved < event["step"] <= stop
    }
    machine = SimulatedMachine(slower(3.0, 0.3))
    for step in range(saved):
        machine.batches(step)
    resumed, rest = train_on(machine, PRETRAIN, tmp_path / "lost")
    assert (digest(resumed), saved + rest.steps) == (digest(whole), result.steps)


def test_recorded_decisions_are_made_whatever_the_clock_says():
    budget = StepBudget(PRETRAIN, 100, SECONDS)
    budget.replay(({5: 50, 7: 48}, 20))
    assert [budget.update(step, 9.0 * step) for step in range(1, 9)] == [step in (5, 7) for step in range(1, 9)]
    assert budget.totals == [(0, 100), (5, 50), (7, 48)]


def test_every_decision_is_an_event(tmp_path: Path):
    machine = SimulatedMachine(slower(3.0))
    _, result = train_on(machine, PRETRAIN, tmp_path)
    decisions = [event for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "schedule"]
    assert (decisions[0]["step"], decisions[0]["steps"], decisions[0]["decay_step"]) == (0, PLANNED, 0.4 * PLANNED)
    assert decisions[-1]["steps"] == result.steps
    assert len(decisions) < 20


def test_a_stopped_run_goes_on_with_the_time_that_is_left(tmp_path: Path):
    machine = SimulatedMachine(steady)
    with pytest.raises(Interrupted):
        train_on(machine, PRETRAIN, tmp_path, on_step=lambda n: os.kill(os.getpid(), signal.SIGTERM) if n == 40 else 0)
    slow = SimulatedMachine(slower(3.0, 0.0))
    _, rest = train_on(slow, PRETRAIN, tmp_path)
    assert slow.now == pytest.approx(SECONDS / 2, rel=0.1)
    assert rest.steps == pytest.approx(PLANNED / 6, rel=0.15)


def test_few_steps_are_said(tmp_path: Path):
    train_on(SimulatedMachine(lambda now: 30.0), PRETRAIN, tmp_path)
    notes = [event["text"] for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "note"]
    assert notes == [f"only 3 steps fit into 100 s ({PLANNED} were planned): the machine is slow or busy"]
