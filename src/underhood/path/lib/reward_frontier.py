"""Reward–KL frontier of an enumerable task: the largest reward that any policy has at a divergence, known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from underhood.align.exact import expectation, kl_divergence, rlhf_optimum
from underhood.path.lib.word_task import WordTask

BETAS = tuple(np.geomspace(1e4, 0.02, 400).tolist())


@dataclass
class RewardCurve:
    """Policies along a training: divergence in nats, gain of reward, and the largest gain possible at that KL."""

    kl: list[float] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def share(self, i: int) -> float:
        """Of the largest gain possible, at point i."""
        return self.gain[i] / self.best[i]


class RewardFrontier:
    """The largest gold reward at a divergence: ``min over β of β log Z(β) + β KL`` by convex duality.

    Every β gives an upper bound; over a grid of β the smallest is tight to about 1e-4 of it.
    """

    def __init__(self, task: WordTask):
        self.task, self.start = task, float(expectation(task.ref_logp_N, task.gold_N))
        self._bound_K = np.array([rlhf_optimum(task.ref_logp_N, task.gold_N, beta)[1] for beta in BETAS])

    def gain(self, kl: float) -> float:
        """Over the reference's mean reward."""
        return float((self._bound_K + np.array(BETAS) * kl).min()) - self.start

    def add(self, curve: RewardCurve, logp_N: Float[Tensor, "N"]) -> None:
        """Measures a policy and appends it to a curve."""
        kl = float(kl_divergence(logp_N, self.task.ref_logp_N))
        curve.kl.append(kl)
        curve.gain.append(float(expectation(logp_N, self.task.gold_N)) - self.start)
        curve.best.append(self.gain(kl))
