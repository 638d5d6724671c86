"""Alignment in a world with a gold reward: training on pairs or on rewards, and where the policy then is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import DPOLoss, DPOSpec, score_all_pairs, score_pairs, sequence_log_probs
from underhood.align.pairs import Marked, PairBatch, PairBatches
from underhood.align.policy import Policy
from underhood.align.policy_methods import PolicyMethod
from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
from underhood.align.rejection import best_of_n_kl_bound
from underhood.core.runlog import RunLog
from underhood.models.decoder import Decoder
from underhood.path.lib.answer_rows import answer_rows
from underhood.path.lib.noisy_judge import GoldScored
from underhood.train.loop import FitSpec, LossFn, fit
from underhood.train.optim import AdamWSpec

Watch = Callable[[int, Decoder], None]
"""Told the steps done and the model as it is."""


@runtime_checkable
class MarkedAnswer(GoldScored, Protocol):
    """A sampled answer with its prompt.

    Attributes:
        marked: prompt and answer as ids, with the answer marked.
        question: equal for answers to the same prompt.
    """

    @property
    def marked(self) -> Marked: ...

    @property
    def question(self) -> Hashable: ...


@dataclass(frozen=True)
class FrontierPoint:
    """A policy by what it gains and how far it went.

    Attributes:
        kl: KL(π ‖ π_start) per answer in nats, estimated from the policy's own answers (k1).
        gold, proxy: mean gold reward, and mean score of the reward model (NaN without one).
    """

    kl: float
    gold: float
    proxy: float = math.nan


@torch.no_grad()
def divergence(policy: Decoder, start: Decoder, answers: Sequence[MarkedAnswer]) -> float:
    """Mean of ``log π − log π_start`` over answers of the policy, nats per answer."""
    rows = answer_rows([(ids, mask.index(True)) for ids, mask in (answer.marked for answer in answers)])
    return float((sequence_log_probs(policy.eval(), rows) - sequence_log_probs(start, rows)).mean())


def policy_gradient(
    start: Decoder, task: PolicyTask, method: PolicyMethod, sizes: RolloutSpec, watch: Watch | None = None
) -> Decoder:
    """A copy of the start after PPO or GRPO on a task's rewards."""
    policy = Policy(
        copy.deepcopy(start),
        sampling=sizes.sampling,
        value_init_std=method.value_init_std,
        reference=method.needs_reference,
        seed=sizes.seed,
    )
    on_step = None if watch is None else lambda step: watch(step, policy.model)
    PolicyTrainer(policy, method, task, sizes, stage="policy", log=RunLog(None), on_step=on_step).train()
    return policy.model.eval()


def by_pairs(
    start: Decoder,
    pairs: Sequence[tuple[MarkedAnswer, MarkedAnswer]],
    loss: str,
    seed: int,
    *,
    steps: int,
    lr: float = 2e-3,
    watch: Watch | None = None,
) -> Decoder:
    """Training on preference pairs themselves: ``dpo``, ``preferred`` (fine-tuning on the chosen answers) or
    ``unlikelihood`` (their likelihood up, that of the rejected answers down).
    """
    batches = PairBatches([(chosen.marked, rejected.marked) for chosen, rejected in pairs], batch_size=32, seed=seed)
    losses: dict[str, Callable[[], LossFn[PairBatch]]] = {
        "dpo": lambda: DPOLoss(score_all_pairs(start, batches), DPOSpec(beta=0.1)),
        "preferred": lambda: preferred_loss,
        "unlikelihood": lambda: unlikelihood_loss,
    }
    model = copy.deepcopy(start).train()
    fit(
        model,
        batches,
        losses[loss](),
        AdamWSpec(lr=lr, weight_decay=0.0).build(model),
        FitSpec(steps=steps),
        stage=loss,
        log=RunLog(None),
        watch=None if watch is None else lambda step, _: watch(step, model),
    )
    return model.eval()


def preferred_loss(model: Decoder, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
    """Negative log-likelihood of the chosen answers, the sum over pairs."""
    return -score_pairs(model, batch.rows).chosen_N.sum(), {}


def unlikelihood_loss(model: Decoder, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
    """``−log π(y_w) + log π(y_l)``, the baseline of Rafailov et al. 2023, section 6: nothing bounds it."""
    log_p = score_pairs(model, batch.rows)
    return (log_p.rejected_N - log_p.chosen_N).sum(), {}


def best_of(answers: Sequence[MarkedAnswer], judged_N: Float[Tensor, "N"], n: int) -> FrontierPoint:
    """Best of n by a judge: of every n answers to a question the one with the highest score.

    The KL is the published value log n − (n − 1) / n, an upper bound (Beirami et al. 2024, theorem 1).
    """
    by_question: dict[Hashable, list[tuple[float, float]]] = {}
    for answer, score in zip(answers, judged_N.tolist(), strict=True):
        by_question.setdefault(answer.question, []).append((score, answer.gold))
    best = [max(scored[i : i + n]) for scored in by_question.values() for i in range(0, len(scored) - n + 1, n)]
    scores, gold = zip(*best, strict=True)
    return FrontierPoint(best_of_n_kl_bound(n), sum(gold) / len(gold), sum(scores) / len(scores))
