"""Alignment of the review world's models: every method's gold reward against its distance from where it began."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import DPOLoss, DPOSpec, score_all_pairs, score_pairs, sequence_log_probs
from underhood.align.experience import PolicyPrompt
from underhood.align.grpo import GRPOSpec
from underhood.align.pairs import PairBatch, PairBatches
from underhood.align.policy import Policy
from underhood.align.policy_methods import GRPOMethod, PolicyMethod, PPOMethod
from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
from underhood.align.ppo import PPOSpec
from underhood.align.reward_model import RewardModel
from underhood.align.rewards import RewardFunction, SampledAnswer
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.infer.sample import SamplingSpec
from underhood.models.decoder import Decoder
from underhood.path.lib.answer_rows import answer_rows, random_rows
from underhood.path.lib.review_models import (
    PROMPT_TOKENS,
    PROMPTS,
    Review,
    golds,
    sampled_reviews,
    scores,
    web_ids,
    web_texts,
)
from underhood.path.lib.review_world import ANSWER_TOKENS_MAX, TOKENIZER, prompt_text
from underhood.train.loop import FitSpec, LossFn, fit
from underhood.train.optim import AdamWSpec

ANSWERS_PER_PROMPT = 8
ANSWERS_PER_STEP = ANSWERS_PER_PROMPT * len(PROMPTS)

Watch = Callable[[int, Decoder], None]
"""Told the steps done and the model as it is."""

Pairs = Sequence[tuple[Review, Review]]


@dataclass(frozen=True)
class FrontierPoint:
    """A policy by what it gains and how far it went.

    Attributes:
        kl: KL(π ‖ π_start) per answer in nats, estimated from the policy's own answers (k1).
        gold, proxy: mean gold reward, and mean score of the reward model (NaN without one).
    """

    kl: float
    gold: float
    proxy: float


def frontier_point(
    policy: Decoder, start: Decoder, seed: int, *, proxy: RewardModel | None = None, count: int = 240
) -> FrontierPoint:
    reviews = sampled_reviews(policy, count, seed)
    score = float(scores(proxy, reviews).mean()) if proxy is not None else math.nan
    return FrontierPoint(divergence(policy, start, reviews), float(golds(reviews).mean()), score)


@torch.no_grad()
def divergence(policy: Decoder, start: Decoder, reviews: Sequence[Review]) -> float:
    """Mean of ``log π − log π_start`` over answers of the policy, nats per answer."""
    rows = answer_rows([(review.whole, PROMPT_TOKENS) for review in reviews])
    return float((sequence_log_probs(policy.eval(), rows) - sequence_log_probs(start, rows)).mean())


def proxy_reward(model: RewardModel) -> RewardFunction:
    """A reward model's scores as a reward function."""

    def score(answers: Sequence[SampledAnswer]) -> list[float]:
        texts = [
            [*PROMPTS[answer.record["thing"]], *TOKENIZER.encode(answer.answer), *[TOKENIZER.end] * answer.finished]
            for answer in answers
        ]
        return model.scores(texts, batch_size=256).tolist()

    return score


def by_policy_gradient(
    start: Decoder,
    reward: RewardFunction,
    method: PolicyMethod,
    seed: int,
    *,
    steps: int,
    lr: float = 1e-3,
    watch: Watch | None = None,
) -> Decoder:
    """PPO or GRPO on rewards: each step 8 answers to each of the things."""
    policy = Policy(
        copy.deepcopy(start),
        sampling=SamplingSpec(temperature=1.0),
        value_init_std=method.value_init_std,
        reference=method.needs_reference,
        seed=seed,
    )
    prompts = [PolicyPrompt(ids, prompt_text(thing), {"thing": thing}) for thing, ids in PROMPTS.items()]
    task = PolicyTask(prompts=prompts, reward=reward, tokenizer=TOKENIZER, stop_ids=[TOKENIZER.end], ptx=web_rows(seed))
    sizes = RolloutSpec(
        steps=steps,
        prompts=len(prompts),
        answers=ANSWERS_PER_PROMPT,
        max_new_tokens=ANSWER_TOKENS_MAX,
        micro_batch=64,
        lr=lr,
        seed=seed,
    )
    on_step = None if watch is None else lambda step: watch(step, policy.model)
    PolicyTrainer(policy, method, task, sizes, stage="policy", log=RunLog(None), on_step=on_step).train()
    return policy.model.eval()


def ppo(beta: float = 0.05, **more: float) -> PPOMethod:
    return PPOMethod(PPOSpec(beta=beta, missing_end_reward=None, anneal=False, **more))  # type: ignore[arg-type]


def grpo(beta: float = 0.04) -> GRPOMethod:
    return GRPOMethod(GRPOSpec(beta=beta), ANSWER_TOKENS_MAX)


def web_rows(seed: int) -> Callable[[int], Batch]:
    """Batches of pretraining text, for PPO-ptx."""
    rows = [(web_ids(text), 1) for text in web_texts(500, seed)]
    return random_rows(rows, 16, seed)


def by_pairs(
    start: Decoder, pairs: Pairs, loss: str, seed: int, *, steps: int, lr: float = 2e-3, watch: Watch | None = None
) -> Decoder:
    """Training on preference pairs themselves: ``dpo``, ``preferred`` (fine-tuning on the chosen answers) or
    ``unlikelihood`` (their likelihood up, that of the rejected answers down).
    """
    batches = PairBatches([(a.marked, b.marked) for a, b in pairs], batch_size=32, seed=seed)
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


def best_of(reviews: Sequence[Review], proxy_N: Float[Tensor, "N"], n: int) -> FrontierPoint:
    """Best of n by the proxy: of every n answers to a question the one with the highest score.

    The KL is the published value log n − (n − 1) / n, an upper bound (Beirami et al. 2024, theorem 1).
    """
    by_thing: dict[str, list[tuple[float, float]]] = {}
    for review, proxy in zip(reviews, proxy_N.tolist(), strict=True):
        by_thing.setdefault(review.thing, []).append((proxy, review.gold))
    best = [max(rows[i : i + n]) for rows in by_thing.values() for i in range(0, len(rows) - n + 1, n)]
    proxies, gold = zip(*best, strict=True)
    return FrontierPoint(math.log(n) - (n - 1) / n, sum(gold) / len(gold), sum(proxies) / len(proxies))


@torch.no_grad()
def output_entropy(model: Decoder, reviews: Sequence[Review]) -> float:
    """Mean entropy of the next-token distribution over a model's own answers, nats per token."""
    rows = answer_rows([(review.whole, PROMPT_TOKENS) for review in reviews])
    logp_BTV = F.log_softmax(model.eval()(rows.tokens), dim=-1)
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(dim=-1)
    return float(entropy_BT[rows.targets >= 0].mean())
