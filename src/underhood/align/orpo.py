"""Odds ratio preference optimisation (ORPO): fine-tuning and preference in one loss, no reference (Hong et al. 2024).

Fine-tuning on good answers makes bad ones likelier as well, since they look alike. ORPO adds to the fine-tuning loss a
term that compares the odds of the two answers, ``p / (1 − p)`` with p the geometric mean of the token probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, Preference


def odds_ratio_loss(chosen_N: Float[Tensor, "N"], rejected_N: Float[Tensor, "N"], *, odds_weight: float) -> Preference:
    """``−λ log σ(log [odds(y_w) / odds(y_l)])``, the mean over pairs.

    Args:
        chosen_N, rejected_N: log-probabilities per token of the answers in nats, at most 0 (equation 2 over m tokens).
        odds_weight: λ.

    Returns:
        The loss, and as rewards λ times the log-odds.

    Source: Hong et al. 2024, equations 3, 4 and 7.
    """
    chosen_odds_N, rejected_odds_N = log_odds(chosen_N), log_odds(rejected_N)
    loss_N = -odds_weight * F.logsigmoid(chosen_odds_N - rejected_odds_N)
    return Preference(loss_N.mean(), odds_weight * chosen_odds_N.detach(), odds_weight * rejected_odds_N.detach())


def log_odds(logp_N: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """``log [p / (1 − p)]`` of log-probabilities in nats, exact for p near 1 and near 0 (Mächler 2012)."""
    near_one_N = logp_N > -math.log(2)
    # Each branch gets harmless numbers where the other is taken, or its gradient would be NaN there.
    small_N, large_N = torch.where(near_one_N, logp_N, -1.0), torch.where(near_one_N, -1.0, logp_N)
    log_rest_N = torch.where(near_one_N, (-torch.expm1(small_N)).log(), torch.log1p(-large_N.exp()))
    return logp_N - log_rest_N


@dataclass(frozen=True, kw_only=True)
class ORPOSpec:
    """ORPO's loss, a `PreferenceLoss`.

    Attributes:
        odds_weight: λ of equation 6.
        sft_weight: weight of the chosen answer's loss per token, which is 1 in equation 6. It is taken over the answer
            alone; the authors' program and trl also learn the prompt.
    """

    odds_weight: float = 0.1
    sft_weight: float = 1.0
    uses_reference: ClassVar[bool] = False

    def __post_init__(self):
        if self.odds_weight < 0 or self.sft_weight < 0:
            raise ValueError(f"weights can't be negative, got {self.odds_weight} and {self.sft_weight}")

    def preference(self, policy: PairScores, reference: PairScores | None = None) -> Preference:
        """See `align.dpo.PreferenceLoss`."""
        per_token = policy.per_token()
        return odds_ratio_loss(per_token.chosen_N, per_token.rejected_N, odds_weight=self.odds_weight)
