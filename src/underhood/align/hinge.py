"""Hinge loss on preference pairs: content once the margin is wide enough (SLiC-HF, Zhao et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, Preference


def hinge_loss(
    policy_chosen_N: Float[Tensor, "N"],
    policy_rejected_N: Float[Tensor, "N"],
    reference_chosen_N: Float[Tensor, "N"],
    reference_rejected_N: Float[Tensor, "N"],
    *,
    beta: float,
) -> Preference:
    """``max(0, 1 − β h)``, h being DPO's difference of log-ratios, the mean over pairs.

    Args: log-probabilities of whole answers in nats, each (N,); gradients flow through the policy's.

    Source: Zhao et al. 2023, equation 1, on DPO's implicit reward in the normalised form of Liu et al. 2023 (RSO),
    equation 10.
    """
    chosen_N = beta * (policy_chosen_N - reference_chosen_N)
    rejected_N = beta * (policy_rejected_N - reference_rejected_N)
    return Preference((1 - chosen_N + rejected_N).relu().mean(), chosen_N.detach(), rejected_N.detach())


@dataclass(frozen=True, kw_only=True)
class HingeSpec:
    """The hinge loss, a `PreferenceLoss`.

    Attributes:
        beta: β; 1 / β is the margin in nats at which a pair teaches nothing more.
        sft_weight: see `align.dpo.DPOSpec`.
    """

    beta: float = 0.1
    sft_weight: float = 0.0
    uses_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.beta < 0 or self.sft_weight < 0:
            raise ValueError(f"beta and sft_weight can't be negative, got {self.beta} and {self.sft_weight}")

    def preference(self, policy: PairScores, reference: PairScores | None) -> Preference:
        """See `align.dpo.PreferenceLoss`."""
        assert reference is not None
        return hinge_loss(policy.chosen_N, policy.rejected_N, reference.chosen_N, reference.rejected_N, beta=self.beta)
