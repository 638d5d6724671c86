"""Step budget of a run: a fixed number of steps, or as many as fit into the time, decided as the clock goes.

A schedule that ends at step M needs to know M, but a busy machine may slow down threefold at any moment. So M is
decided anew whenever the pace of the last steps says that the run would miss its time. The schedule's position, the
share of the run that is over, stays where it is and reaches 1 at the new M: a learning rate that has not begun to fall
begins to fall later or earlier, and one that falls goes on falling from where it is. On a steady machine nothing
changes.

Decisions are plain (step, total) pairs. They are logged as `schedule` events and kept in checkpoints, so that a run
that is resumed makes the same ones again, whatever the clock says then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from underhood.core.runlog import read_events
from underhood.train.schedule import Schedule

TOLERANCE = 0.02
"""Share of the budget by which the predicted end may miss it before the number of steps changes."""

WINDOW = 0.03
"""Share of the budget over which the pace is measured at least; an eighth of the time that is left is added."""


SPACING = 0.01
"""Share of the budget between decisions, but for the second half of the steps."""


class StepBudget:
    """The number of steps, and the learning-rate factor of each.

    Args:
        steps: how many are planned.
        seconds: time for all of them, earlier processes included; None keeps the number fixed.
        max_steps: the most that a faster machine may make.
        totals: decisions that were made before (of a resumed run).
        start: updates made and seconds spent before this process.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int,
        seconds: float | None = None,
        max_steps: int | None = None,
        totals: Sequence[tuple[int, int]] = (),
        start: tuple[int, float] = (0, 0.0),
    ):
        self.schedule, self.seconds, self.max_steps = schedule, seconds, max_steps
        self.totals = [(step, total) for step, total in totals] if totals and seconds is not None else [(0, steps)]
        self._recorded: dict[int, int] = {}
        self._recorded_until = 0
        self._history: deque[tuple[int, float]] = deque([start])
        self._decided = start[1]

    @property
    def steps(self) -> int:
        """The last step, as decided so far."""
        return self.totals[-1][1]

    @property
    def decay_step(self) -> int:
        """The first step whose learning rate falls, as decided so far."""
        return bisect_right(range(self.steps), self.schedule.decay_start(self._planned) - 1, key=self._position)

    @property
    def _planned(self) -> int:
        return self.totals[0][1]

    def share(self, step: int) -> float:
        """How much of the training is over after `step` updates, from 0 to 1; later decisions don't change it."""
        return min(self._position(step) / self._planned, 1.0)

    def end(self, step: int) -> None:
        """Decides that `step` is the last."""
        self._decide(step, step)

    def lr_factor(self, step: int) -> float:
        """By what every learning rate is multiplied in update number `step` (from 0)."""
        return self.schedule.lr_factor(self._position(step), self._planned)

    def _position(self, step: int) -> float:
        """Where `step` is in the planned course: its own number as long as nothing was decided anew."""
        position, start, total = 0.0, 0, self._planned
        for decided_at, new_total in self.totals[1:]:
            if step <= decided_at:
                break
            position += (decided_at - start) * (self._planned - position) / (total - start)
            start, total = decided_at, new_total
        return position + (step - start) * (self._planned - position) / (total - start)

    def update(self, step: int, elapsed: float) -> bool:
        """Decides the number of steps anew, after `step` updates in `elapsed` seconds; True if it changed."""
        if self.seconds is None:
            return False
        self._history.append((step, elapsed))
        if step <= self._recorded_until:
            return self._decide(step, self._recorded.get(step, self.steps))
        if elapsed >= self.seconds:
            return self._decide(step, step)
        window = WINDOW * self.seconds + (self.seconds - elapsed) / 8
        while len(self._history) > 2 and elapsed - self._history[1][1] >= window:
            self._history.popleft()
        past_step, past_elapsed = self._history[0]
        early = elapsed - past_elapsed < WINDOW * self.seconds or elapsed - self._decided < SPACING * self.seconds
        if early and 2 * step < self.steps:  # a run that seems half over can't wait
            return False
        pace = (elapsed - past_elapsed) / (step - past_step)
        if abs(elapsed + (self.steps - step) * pace - self.seconds) <= TOLERANCE * self.seconds:
            return False
        self._decided = elapsed
        return self._decide(step, step + round((self.seconds - elapsed) / pace))

    def _decide(self, step: int, total: int) -> bool:
        total = max(step, min(total, self.max_steps or total))
        if total == self.steps:
            return False
        self.totals.append((step, total))
        return True

    def replay(self, recorded: tuple[Mapping[int, int], int]) -> None:
        """Takes decisions from a log (see `recorded_totals`): up to the last logged step the clock is not asked."""
        self._recorded, self._recorded_until = dict(recorded[0]), recorded[1]


def recorded_totals(log: Path | None, stage: str, step: int = 0) -> tuple[dict[int, int], int]:
    """The decisions that a log holds beyond the checkpoint of `step`: totals by step, and the last logged step."""
    totals, last = dict[int, int](), step
    for event in read_events(log) if log is not None else ():
        if event.get("stage") != stage:
            continue
        if event["kind"] == "save" and event["step"] == step:
            totals, last = {}, step
        elif event["kind"] == "schedule" and event["step"] > step:
            totals[event["step"]] = event["steps"]
        elif event["kind"] == "step":
            last = max(last, event["step"])
    return totals, last
