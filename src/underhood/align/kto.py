"""Kahneman–Tversky optimisation (KTO): learning from single answers marked good or bad (Ethayarajh et al. 2024).

No pairs are needed: each answer's reward β log(π / π_ref) is compared with a reference point z₀, the KL divergence of
the policy from the reference, and good and bad answers have weights of their own (loss aversion).

The reference point is estimated from mismatched pairs: prompt n with the answer to another prompt. They have log-ratios
that estimate the divergence with a bias that the paper accepts, and carry no gradient.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.dpo import PairScores, sequence_log_probs
from underhood.align.pairs import Marked, PairBatch
from underhood.align.sft import TrainableModel
from underhood.data.batch import IGNORE, Batch


@dataclass(frozen=True, kw_only=True)
class KTOSpec:
    """The loss.

    Attributes:
        beta: β of the reward; small allows more change.
        desirable_weight, undesirable_weight: λ_D and λ_U. The paper balances the data by them: λ_D n_D / (λ_U n_U)
            between 1 and 3/2 (equation 9).
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self):
        if min(self.beta, self.desirable_weight, self.undesirable_weight) < 0:
            raise ValueError(f"beta and the weights can't be negative, got {self}")


def kl_estimate(
    policy_mismatched_N: Float[Tensor, "N"], reference_mismatched_N: Float[Tensor, "N"]
) -> Float[Tensor, ""]:
    """z₀: ``max(0, mean log [π(y′|x) / π_ref(y′|x)])`` over mismatched pairs, in nats, without gradient.

    Source: Ethayarajh et al. 2024, section 4.1 (the paragraph below equation 8).
    """
    return (policy_mismatched_N - reference_mismatched_N).mean().clamp(min=0).detach()


def kto_loss(
    policy_N: Float[Tensor, "N"],
    reference_N: Float[Tensor, "N"],
    desirable_N: Bool[Tensor, "N"],
    kl: Float[Tensor, ""],
    spec: KTOSpec,
) -> Float[Tensor, "N"]:
    """``λ_y − v(x, y)`` of each answer: ``v = λ_D σ(β [r − z₀])`` for good, ``λ_U σ(β [z₀ − r])`` for bad ones.

    Args:
        policy_N, reference_N: log-probabilities of whole answers in nats; r is their difference.
        desirable_N: which answers are good.
        kl: z₀, see `kl_estimate`.

    Source: Ethayarajh et al. 2024, equation 8.
    """
    surplus_N = spec.beta * (policy_N - reference_N - kl)
    value_N = torch.where(desirable_N, surplus_N, -surplus_N).sigmoid()
    weight_N = torch.where(desirable_N, spec.desirable_weight, spec.undesirable_weight)
    return weight_N * (1 - value_N)


def mismatched_pairs(answers: Sequence[Marked], *, seed: int) -> list[tuple[Marked, Marked]]:
    """Each example beside the same prompt with the answer to another one, as `PairBatches` reads them.

    Ids are put together, never text: nothing is tokenised again. The other prompt is a different text wherever there
    are two; the choice depends on the seed alone, so that the reference's scores can be worked out beforehand.
    """
    prompts = [_split(ids, mask)[0] for ids, mask in answers]
    order = list(range(len(answers)))
    random.Random(seed).shuffle(order)
    partners: dict[int, int] = {}
    for index, number in enumerate(order):
        later = (order[(index + step) % len(order)] for step in range(1, len(order)))
        partners[number] = next((other for other in later if prompts[other] != prompts[number]), number)
    pairs = []
    for number, (ids, mask) in enumerate(answers):
        _, answer, learnt = _split(*answers[partners[number]])
        prompt = prompts[number]
        pairs.append(((ids, mask), ([*prompt, *answer], [False] * len(prompt) + learnt)))
    return pairs


def _split(ids: Sequence[int], mask: Sequence[bool]) -> tuple[list[int], list[int], list[bool]]:
    """Prompt, answer and the answer's mask; the answer begins with its first marked token."""
    start = list(mask).index(True) if any(mask) else len(mask)
    return list(ids[:start]), list(ids[start:]), list(mask[start:])


class KTOLoss:
    """`LossFn` of KTO on batches of `mismatched_pairs`: the sum of `kto_loss` over the answers.

    Logs `kl` (z₀), the rewards of good and bad answers as `desirable_reward` and `undesirable_reward` with their
    numbers `desirable` and `undesirable` (all per answer of the batch, so the quotient is the mean),
    `preference_accuracy` (the share of answers on the right side of z₀), and the log-probability per token and the
    length of the answers.

    z₀ is estimated from each micro-batch, as in the paper: a batch of one is too small.

    Args:
        reference: ``score_all_pairs(model, batches)`` of the model *before* training.
        desirable_N: which answers are good, in the order of the pairs.
    """

    def __init__(self, reference: PairScores, desirable_N: Bool[Tensor, "N"], spec: KTOSpec):
        if len(desirable_N) != len(reference.chosen_N):
            raise ValueError(f"{len(desirable_N)} labels, but {len(reference.chosen_N)} reference scores")
        self.reference, self.desirable_N, self.spec = reference, desirable_N, spec

    def __call__(self, model: TrainableModel, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        reference = self.reference[batch.pairs_N.cpu()].to(batch.rows.tokens.device)
        desirable_N = self.desirable_N[batch.pairs_N.cpu()].to(batch.rows.tokens.device)
        answers, mismatched = halves(batch.rows)
        with torch.no_grad():
            kl = kl_estimate(sequence_log_probs(model, mismatched), reference.rejected_N)
        policy_N = sequence_log_probs(model, answers)
        loss_N = kto_loss(policy_N, reference.chosen_N, desirable_N, kl, self.spec)
        reward_N = self.spec.beta * (policy_N.detach() - reference.chosen_N)
        right_N = (reward_N > self.spec.beta * kl) == desirable_N
        lengths_N = (answers.targets != IGNORE).sum(dim=1)
        return loss_N.sum(), {
            "kl": float(kl) * len(loss_N),
            "desirable": float(desirable_N.sum()),
            "undesirable": float((~desirable_N).sum()),
            "desirable_reward": float(reward_N[desirable_N].sum()),
            "undesirable_reward": float(reward_N[~desirable_N].sum()),
            "preference_accuracy": float(right_N.sum()),
            "answer_log_prob": float((policy_N.detach() / lengths_N).sum()),
            "answer_length": float(lengths_N.sum()),
        }


def halves(rows: Batch) -> tuple[Batch, Batch]:
    """The first and the second half of a batch's rows."""
    positions = (None, None) if rows.positions is None else rows.positions.chunk(2)
    tokens, targets = rows.tokens.chunk(2), rows.targets.chunk(2)
    return Batch(tokens[0], targets[0], positions[0]), Batch(tokens[1], targets[1], positions[1])
