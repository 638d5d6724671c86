"""Divergences between the next-token distributions of a teacher p and a student q.

Knowledge distillation needs a distance between two distributions over the vocabulary. Three are in use, and the
literature does not agree on which is "forward", so each is written out here:

===============  =========================================  ====================================================
name             formula                                    what a small student does
===============  =========================================  ====================================================
forward KL       KL(p‖q) = Σ p (log p − log q)              covers everything that the teacher does (Hinton 2015)
reverse KL       KL(q‖p) = Σ q (log q − log p)              picks a mode of the teacher's (MiniLLM, Gu et al. 2024)
generalised JSD  β KL(p‖m) + (1−β) KL(q‖m),                 between the two; bounded (Agarwal et al. 2024, eq. 1)
                 m = β p + (1−β) q
===============  =========================================  ====================================================

The generalised Jensen–Shannon divergence is 0 at β = 0 and at β = 1. Divided by β it tends to the forward KL for
β → 0, and divided by 1 − β to the reverse KL for β → 1. Implementations that call β = 0 "forward KL" (trl's GKD does)
mean these limits; here each has a name of its own, and the ends are not allowed as values of β.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Divergence(Protocol):
    """A distance between two distributions over the vocabulary, position by position."""

    def __call__(
        self, teacher_logp_NV: Float[Tensor, "N V"], student_logp_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N"]:
        """The divergence in nats of each of N positions, from log-probabilities."""
        ...


@dataclass(frozen=True, kw_only=True)
class ForwardKL:
    """KL(teacher‖student): cross-entropy with the teacher's soft labels, less their entropy (Hinton et al. 2015)."""

    def __call__(
        self, teacher_logp_NV: Float[Tensor, "N V"], student_logp_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N"]:
        return kl_divergence(teacher_logp_NV, student_logp_NV)


@dataclass(frozen=True, kw_only=True)
class ReverseKL:
    """KL(student‖teacher): the student is punished for what the teacher would not say (Gu et al. 2024)."""

    def __call__(
        self, teacher_logp_NV: Float[Tensor, "N V"], student_logp_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N"]:
        return kl_divergence(student_logp_NV, teacher_logp_NV)


@dataclass(frozen=True, kw_only=True)
class GeneralisedJSD:
    """Generalised Jensen–Shannon divergence (Agarwal et al. 2024, equation 1).

    Attributes:
        beta: the teacher's weight in the mixture, strictly between 0 and 1. Near 0 the gradient is like that of the
            forward KL, near 1 like that of the reverse KL.
    """

    beta: float = 0.5

    def __post_init__(self):
        if not 0 < self.beta < 1:
            raise ValueError(f"beta is between 0 and 1, the ends left out, got {self.beta}")

    def __call__(
        self, teacher_logp_NV: Float[Tensor, "N V"], student_logp_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N"]:
        mixture_logp_NV = torch.logaddexp(
            teacher_logp_NV + math.log(self.beta), student_logp_NV + math.log1p(-self.beta)
        )
        teacher_N = kl_divergence(teacher_logp_NV, mixture_logp_NV)
        student_N = kl_divergence(student_logp_NV, mixture_logp_NV)
        return self.beta * teacher_N + (1 - self.beta) * student_N


def kl_divergence(p_logp_NV: Float[Tensor, "N V"], q_logp_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """KL(p‖q) = Σ p (log p − log q) in nats, from log-probabilities; gradients flow through both."""
    return (p_logp_NV.exp() * (p_logp_NV - q_logp_NV)).sum(dim=-1)
