"""Identity preference optimisation (IPO): preferences by a squared loss that cannot run away (Azar et al. 2023).

DPO's logistic loss is never content: where all raters agree on a pair it drives the margin to infinity, however large
β is. IPO asks for a margin of exactly 1 / (2τ), so the reference keeps its hold.

Two conventions differ in what a log-probability is. The paper's is that of the whole answer (``summed``). Its authors'
experiments, and trl, divide it by the answer's length (``per-token``), so that one τ serves answers of all lengths;
the two losses agree only for answers of a single token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, Preference

LengthConvention = Literal["summed", "per-token"]
"""Log-probabilities of whole answers, or divided by the number of the answer's tokens."""


def ipo_loss(
    policy_chosen_N: Float[Tensor, "N"],
    policy_rejected_N: Float[Tensor, "N"],
    reference_chosen_N: Float[Tensor, "N"],
    reference_rejected_N: Float[Tensor, "N"],
    *,
    tau: float,
) -> Preference:
    """``(h − 1 / (2τ))²`` with ``h = log [π(y_w) π_ref(y_l)] / [π(y_l) π_ref(y_w)]``, the mean over pairs.

    Args: log-probabilities in nats, of whole answers or per token, each (N,); gradients flow through the policy's.

    Returns:
        The loss, and the rewards τ log(π / π_ref).

    Source: Azar et al. 2023, equation 17.
    """
    chosen_N, rejected_N = policy_chosen_N - reference_chosen_N, policy_rejected_N - reference_rejected_N
    loss_N = (chosen_N - rejected_N - 1 / (2 * tau)) ** 2
    return Preference(loss_N.mean(), tau * chosen_N.detach(), tau * rejected_N.detach())


@dataclass(frozen=True, kw_only=True)
class IPOSpec:
    """IPO's loss, a `PreferenceLoss`.

    Attributes:
        tau: τ, how dear it is to leave the reference; the wanted margin is 1 / (2τ).
        length: the convention, see above.
        sft_weight: see `align.dpo.DPOSpec`.
    """

    tau: float = 0.1
    length: LengthConvention = "per-token"
    sft_weight: float = 0.0
    uses_reference: ClassVar[bool] = True

    def __post_init__(self):
        if not self.tau > 0 or self.sft_weight < 0:
            raise ValueError(f"tau must be positive, sft_weight not negative, got {self.tau} and {self.sft_weight}")
        if self.length not in ("summed", "per-token"):
            raise ValueError(f"length is summed or per-token, got {self.length!r}")

    def preference(self, policy: PairScores, reference: PairScores | None) -> Preference:
        """See `align.dpo.PreferenceLoss`."""
        assert reference is not None
        if self.length == "per-token":
            policy, reference = policy.per_token(), reference.per_token()
        return ipo_loss(policy.chosen_N, policy.rejected_N, reference.chosen_N, reference.rejected_N, tau=self.tau)
