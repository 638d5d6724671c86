"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """A slot that takes any course of the learning rate."""

    def lr_factor(self, step: float, steps: int) -> float:
        """The factor for update number `step` (counted from 0) of `steps`."""
        ...

    def decay_start(self, steps: int) -> float:
        """The update, of `steps`, after which it falls."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """Warm up linearly, hold, then decay: the factor by which every learning rate is multiplied.

    Attributes:
        warmup: share of the steps that climb from 0 to 1.
        decay: share of the steps, at the end, that fall from 1 to `floor`. A decay of ``1 − warmup`` leaves no
            plateau and gives the classical cosine or linear schedules.
        floor: the factor that is approached at the end.
        shape: how it falls. ``linear`` to zero is the best of the simple ones for a fixed budget
            (Hägele et al. 2024; Bergsma et al. 2025); ``cosine`` is Loshchilov & Hutter 2017.
    """

    warmup: float = 0.02
    decay: float = 0.5
    floor: float = 0.0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self):
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1 + 1e-9):
            raise ValueError(f"warmup and decay are shares of the run, got {self.warmup} and {self.decay}")

    def decay_start(self, steps: int) -> float:
        """See `Schedule`."""
        return steps * (1 - self.decay)

    def lr_factor(self, step: float, steps: int) -> float:
        """The factor for update number `step` (counted from 0) of `steps`; never exactly 0, so no step is wasted."""
        warmup, decay = self.warmup * steps, self.decay * steps
        if step + 1 < warmup:
            return (step + 1) / warmup
        left = (steps - step) / (decay + 1) if decay >= 1 else 1.0
        if left >= 1:
            return 1.0
        shaped = left if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
        return self.floor + (1 - self.floor) * shaped


def noam(step: int, d_model: int, warmup: int = 4000) -> float:
    """The learning rate itself for update `step` (counted from 1): ``width^−½ · min(step^−½, step · warmup^−1.5)``.

    It climbs linearly for `warmup` steps and falls as the root of the step. Source: Vaswani et al. 2017, equation 3.
    """
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


@dataclass(frozen=True, kw_only=True)
class NoamSpec:
    """The schedule of `noam` as factors of its peak: the optimiser's learning rate is the peak, see `peak`.

    It does not depend on how many steps there are.

    Attributes:
        warmup: updates that climb.
    """

    warmup: int = 4000

    def __post_init__(self):
        if self.warmup < 1:
            raise ValueError(f"warmup must be at least 1, got {self.warmup}")

    def peak(self, d_model: int) -> float:
        """The highest learning rate: ``(d_model · warmup)^−½``."""
        return noam(self.warmup, d_model, self.warmup)

    def decay_start(self, steps: int) -> float:
        """See `Schedule`."""
        return float(min(self.warmup, steps))

    def lr_factor(self, step: float, steps: int) -> float:
        """See `Schedule`."""
        return min((step + 1) / self.warmup, (self.warmup / (step + 1)) ** 0.5)
