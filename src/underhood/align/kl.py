"""KL divergence from a reference policy: Monte Carlo estimators k1, k2, k3, and the controllers of its weight.

With ``r = π_ref(a) / π(a)`` and answers drawn from π, all three estimate ``KL(π ‖ π_ref)``: k1 = −log r is unbiased
and may be negative, k2 = (log r)² / 2 is biased with little variance, k3 = (r − 1) − log r is unbiased and never
negative (Schulman 2020, "Approximating KL divergence"). As a *loss* they differ more: the expected gradient of k1 is
zero, that of k2 is the gradient of KL(π ‖ π_ref), and that of k3 is the gradient of the forward KL(π_ref ‖ π).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def k1(logp_NT: Float[Tensor, "*N"], ref_logp_NT: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """``log π − log π_ref`` per token, in nats: unbiased, of either sign."""
    return logp_NT - ref_logp_NT


def k2(logp_NT: Float[Tensor, "*N"], ref_logp_NT: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """``(log π − log π_ref)² / 2`` per token, in nats: biased, with little variance near the reference."""
    return 0.5 * (logp_NT - ref_logp_NT) ** 2


def k3(logp_NT: Float[Tensor, "*N"], ref_logp_NT: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """``π_ref / π − 1 − log(π_ref / π)`` per token, in nats: unbiased and never negative. GRPO's KL term.

    Source: Schulman 2020; Shao et al. 2024, equation 4.
    """
    log_ratio_NT = ref_logp_NT - logp_NT
    return torch.expm1(log_ratio_NT) - log_ratio_NT


ESTIMATORS: Mapping[Estimator, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


@dataclass
class KLController:
    """KL coefficient β of the reward ``r − β KL``, fixed or adaptive.

    With a `target` it is the log-space proportional controller of Ziegler et al. 2019, section 2.2:
    ``β ← β (1 + clip(KL / target − 1, −0.2, 0.2) · n / horizon)`` after n answers whose mean KL was measured.

    Attributes:
        beta: the coefficient now.
        target: KL per answer that is aimed at, in nats; None keeps β as it is.
        horizon: answers over which an error of 20 % moves β by 20 %.
    """

    beta: float
    target: float | None = None
    horizon: int = 10_000

    CLIP = 0.2

    def __post_init__(self):
        if self.beta < 0:
            raise ValueError(f"beta can't be negative, got {self.beta}")
        if self.target is not None and not self.target > 0:
            raise ValueError(f"target must be above 0, got {self.target}")
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {self.horizon}")

    def update(self, kl: float, count: int) -> None:
        """Moves β after `count` answers with a mean KL of `kl` nats."""
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -self.CLIP), self.CLIP)
        self.beta *= 1 + error * count / self.horizon
