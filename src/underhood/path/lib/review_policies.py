"""Alignment of the review world's models: every method's gold reward against its distance from where it began."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from underhood.align.experience import PolicyPrompt
from underhood.align.grpo import GRPOSpec
from underhood.align.policy_methods import GRPOMethod, PolicyMethod, PPOMethod
from underhood.align.policy_training import PolicyTask, RolloutSpec
from underhood.align.ppo import PPOSpec
from underhood.align.reward_model import RewardModel
from underhood.align.rewards import RewardFunction, SampledAnswer
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder
from underhood.path.lib.answer_rows import answer_rows, random_rows
from underhood.path.lib.gold_policies import FrontierPoint, Watch, divergence, policy_gradient
from underhood.path.lib.noisy_judge import golds
from underhood.path.lib.review_models import (
    PROMPT_TOKENS,
    PROMPTS,
    Review,
    sampled_reviews,
    scores,
    web_ids,
    web_texts,
)
from underhood.path.lib.review_world import ANSWER_TOKENS_MAX, TOKENIZER, prompt_text

ANSWERS_PER_PROMPT = 8
ANSWERS_PER_STEP = ANSWERS_PER_PROMPT * len(PROMPTS)


def frontier_point(
    policy: Decoder, start: Decoder, seed: int, *, proxy: RewardModel | None = None, count: int = 240
) -> FrontierPoint:
    reviews = sampled_reviews(policy, count, seed)
    score = float(scores(proxy, reviews).mean()) if proxy is not None else math.nan
    return FrontierPoint(divergence(policy, start, reviews), float(golds(reviews).mean()), score)


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
    return policy_gradient(start, task, method, sizes, watch)


def ppo(beta: float = 0.05, **more: float) -> PPOMethod:
    return PPOMethod(PPOSpec(beta=beta, missing_end_reward=None, anneal=False, **more))  # type: ignore[arg-type]


def grpo(beta: float = 0.04) -> GRPOMethod:
    return GRPOMethod(GRPOSpec(beta=beta), ANSWER_TOKENS_MAX)


def web_rows(seed: int) -> Callable[[int], Batch]:
    """Batches of pretraining text, for PPO-ptx."""
    rows = [(web_ids(text), 1) for text in web_texts(500, seed)]
    return random_rows(rows, 16, seed)


@torch.no_grad()
def output_entropy(model: Decoder, reviews: Sequence[Review]) -> float:
    """Mean entropy of the next-token distribution over a model's own answers, nats per token."""
    rows = answer_rows([(review.whole, PROMPT_TOKENS) for review in reviews])
    logp_BTV = F.log_softmax(model.eval()(rows.tokens), dim=-1)
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(dim=-1)
    return float(entropy_BT[rows.targets >= 0].mean())
