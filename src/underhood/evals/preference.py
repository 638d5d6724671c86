"""Preference accuracy and reward margins on held-out pairs.

DPO reads a reward out of the policy itself (Rafailov et al. 2023, section 4, equation 5 without the term that all
answers to one prompt share)::

    r(x, y) = β (log π(y | x) − log π_ref(y | x))

The margin of a pair is r(chosen) − r(rejected). Before training, policy and reference agree: every margin is 0 and the
accuracy of the reward exactly one half. Whether the policy gives the chosen answer the higher likelihood is another
question with another answer; both are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.protocols import LanguageModel
from underhood.evals.intervals import Interval, bootstrap_mean, wilson
from underhood.evals.scoring import Continuation, score_continuations

TIE = 1e-5


@dataclass(frozen=True)
class PreferenceItem:
    """Ids of a prompt and of two answers to it, the better one first."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class PairLogProbs:
    """Σ log p (nats) that one model gives to both answers of every pair, and their lengths in tokens."""

    chosen_N: NDArray[np.float64]
    rejected_N: NDArray[np.float64]
    chosen_tokens_N: NDArray[np.int64]
    rejected_tokens_N: NDArray[np.int64]


@dataclass(frozen=True)
class PreferenceReport:
    """A policy's preferences, against a reference or alone.

    Attributes:
        policy: log probabilities under the policy.
        reference: the same under the model it started from; None where there is none to compare with.
        beta: strength of the tie to the reference, as in training.
    """

    policy: PairLogProbs
    reference: PairLogProbs | None
    beta: float

    @property
    def margins_N(self) -> NDArray[np.float64]:
        """Reward of the chosen answer minus that of the rejected one, per pair.

        Raises:
            ValueError: there is no reference.
        """
        if self.reference is None:
            raise ValueError("a reward margin needs a reference model")
        policy_N = self.policy.chosen_N - self.policy.rejected_N
        return self.beta * (policy_N - (self.reference.chosen_N - self.reference.rejected_N))

    def margin(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Mean reward margin, in nats times β."""
        return bootstrap_mean(self.margins_N, level=level, seed=seed)

    def likelihood_accuracy(self, *, per_token: bool = False, level: float = 0.95) -> Interval:
        """Share of pairs whose chosen answer the policy finds likelier, in sum or per token."""
        return _share(self.likelihood_credit(per_token=per_token), level)

    def likelihood_credit(self, *, per_token: bool = False) -> NDArray[np.float64]:
        """Per pair: 1 where the chosen answer is likelier, one half at a tie."""
        p = self.policy
        if per_token:
            return credit(p.chosen_N / p.chosen_tokens_N - p.rejected_N / p.rejected_tokens_N, TIE)
        return credit(p.chosen_N - p.rejected_N, TIE)


def score_pairs(
    model: LanguageModel,
    items: Sequence[PreferenceItem],
    *,
    batch_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> PairLogProbs:
    """One model's log probabilities; those of the reference can be kept and used for every later stage."""
    if not items:
        raise ValueError("no pairs to score")
    pieces = [Continuation(item.prompt, answer) for item in items for answer in (item.chosen, item.rejected)]
    totals_N2 = score_continuations(model, pieces, batch_tokens=batch_tokens, device=device).reshape(-1, 2)
    lengths_N2 = np.array([len(piece.tokens) for piece in pieces]).reshape(-1, 2)
    return PairLogProbs(totals_N2[:, 0], totals_N2[:, 1], lengths_N2[:, 0], lengths_N2[:, 1])


def compare_with_reference(policy: PairLogProbs, reference: PairLogProbs | None, *, beta: float) -> PreferenceReport:
    """The report of a policy; both must have scored the same pairs."""
    if reference is not None and len(reference.chosen_N) != len(policy.chosen_N):
        raise ValueError(f"{len(policy.chosen_N)} pairs of the policy, {len(reference.chosen_N)} of the reference")
    return PreferenceReport(policy, reference, beta)


def credit(differences_N: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    """1 above zero, 0 below, one half within `tie` of zero."""
    return np.where(np.abs(differences_N) <= tie, 0.5, (differences_N > 0).astype(np.float64))


def _share(credit_N: NDArray[np.float64], level: float) -> Interval:
    return wilson(float(credit_N.sum()), len(credit_N), level=level)
