"""Simple preference optimisation (SimPO): the mean log-probability as reward, no reference (Meng et al. 2024).

The reward is what decoding ranks answers by, the log-probability per token, so length is worth nothing in itself. The
two rewards must differ by a margin γ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, Preference


def simpo_loss(
    chosen_N: Float[Tensor, "N"], rejected_N: Float[Tensor, "N"], *, beta: float, gamma: float
) -> Preference:
    """``−log σ(β [log p(y_w) / |y_w| − log p(y_l) / |y_l|] − γ)``, the mean over pairs.

    Args:
        chosen_N, rejected_N: log-probabilities per token in nats.
        beta: scale of the reward.
        gamma: the target margin of the rewards.

    Source: Meng, Xia & Chen 2024, equation 6.
    """
    chosen_reward_N, rejected_reward_N = beta * chosen_N, beta * rejected_N
    loss_N = -F.logsigmoid(chosen_reward_N - rejected_reward_N - gamma)
    return Preference(loss_N.mean(), chosen_reward_N.detach(), rejected_reward_N.detach())


@dataclass(frozen=True, kw_only=True)
class SimPOSpec:
    """SimPO's loss, a `PreferenceLoss`; the defaults are within the ranges of the paper's table 7.

    Attributes:
        beta: scale of the reward, 2 to 10 in the paper.
        gamma: target margin of the rewards; the paper reports gamma / beta from 0.1 to 0.8.
        sft_weight: see `align.dpo.DPOSpec`.
    """

    beta: float = 2.0
    gamma: float = 1.0
    sft_weight: float = 0.0
    uses_reference: ClassVar[bool] = False

    def __post_init__(self):
        if not self.beta > 0 or self.gamma < 0 or self.sft_weight < 0:
            raise ValueError(
                "beta must be positive, gamma and sft_weight not negative, "
                f"got {self.beta}, {self.gamma} and {self.sft_weight}"
            )

    def preference(self, policy: PairScores, reference: PairScores | None = None) -> Preference:
        """See `align.dpo.PreferenceLoss`."""
        per_token = policy.per_token()
        return simpo_loss(per_token.chosen_N, per_token.rejected_N, beta=self.beta, gamma=self.gamma)
