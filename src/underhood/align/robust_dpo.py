"""Robust DPO: an unbiased loss where a known share of preferences is the wrong way round (Chowdhury et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, Preference


def robust_dpo_loss(
    policy_chosen_N: Float[Tensor, "N"],
    policy_rejected_N: Float[Tensor, "N"],
    reference_chosen_N: Float[Tensor, "N"],
    reference_rejected_N: Float[Tensor, "N"],
    *,
    beta: float,
    label_noise: float,
) -> Preference:
    """``[(1 − ε) ℓ(h) − ε ℓ(−h)] / (1 − 2ε)`` with ``ℓ(h) = −log σ(h)``, the mean over pairs.

    Where each pair is swapped with probability ε, its expectation is DPO's loss on the unswapped pairs; cDPO's, which
    adds the second term, keeps a bias.

    Args: log-probabilities of whole answers in nats, each (N,); gradients flow through the policy's.

    Source: Chowdhury, Kini & Natarajan 2024, section 3 (the unbiased loss of rDPO).
    """
    chosen_N = beta * (policy_chosen_N - reference_chosen_N)
    rejected_N = beta * (policy_rejected_N - reference_rejected_N)
    h_N = chosen_N - rejected_N
    loss_N = -((1 - label_noise) * F.logsigmoid(h_N) - label_noise * F.logsigmoid(-h_N)) / (1 - 2 * label_noise)
    return Preference(loss_N.mean(), chosen_N.detach(), rejected_N.detach())


@dataclass(frozen=True, kw_only=True)
class RobustDPOSpec:
    """Robust DPO's loss, a `PreferenceLoss`.

    Attributes:
        beta: DPO's β.
        label_noise: ε, the share of pairs that are the wrong way round; below one half.
        sft_weight: see `align.dpo.DPOSpec`.
    """

    beta: float = 0.1
    label_noise: float = 0.1
    sft_weight: float = 0.0
    uses_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.beta < 0 or self.sft_weight < 0:
            raise ValueError(f"beta and sft_weight can't be negative, got {self.beta} and {self.sft_weight}")
        if not 0 <= self.label_noise < 0.5:
            raise ValueError(f"label_noise is a share below one half, got {self.label_noise}")

    def preference(self, policy: PairScores, reference: PairScores | None) -> Preference:
        """See `align.dpo.PreferenceLoss`."""
        assert reference is not None
        return robust_dpo_loss(
            policy.chosen_N,
            policy.rejected_N,
            reference.chosen_N,
            reference.rejected_N,
            beta=self.beta,
            label_noise=self.label_noise,
        )
