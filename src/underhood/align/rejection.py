"""Best-of-n and rejection sampling: n answers to each prompt, of which the one with the highest reward is kept.

Used as it is, best-of-n spends compute at inference (Stiennon et al. 2020; Nakano et al. 2021). Fine-tuned on, the kept
answers move the model itself: rejection-sampling fine-tuning (Touvron et al. 2023, section 3.2.3), whose iterations
Llama 2 ran before PPO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.align.experience import PolicyPrompt, sampled_answers
from underhood.align.rewards import RewardFunction, SampledAnswer, score_answers
from underhood.core.protocols import Tokenizer
from underhood.infer.engine import Engine
from underhood.infer.sample import SamplingSpec

PROMPTS_PER_ROLLOUT = 16


@dataclass(frozen=True)
class BestAnswer:
    """The answer with the highest reward of n, with the rewards of all n."""

    prompt: PolicyPrompt
    answer: SampledAnswer
    reward: float
    rewards: tuple[float, ...]


def best_of_n(rewards_PG: Float[Tensor, "P G"]) -> Int[Tensor, "P"]:
    """The number of each prompt's best answer, the first among equals."""
    return (rewards_PG == rewards_PG.amax(dim=1, keepdim=True)).int().argmax(dim=1)


def best_of_n_kl_bound(n: int) -> float:
    """``log n − (n − 1) / n``: the KL of best-of-n from the model in nats, at most.

    It is exact where no two answers have the same reward and none is likely (Beirami et al. 2024, theorem 1).
    """
    return math.log(n) - (n - 1) / n


def sample_best(
    engine: Engine,
    prompts: Sequence[PolicyPrompt],
    reward: RewardFunction,
    tokenizer: Tokenizer,
    *,
    n: int,
    max_new_tokens: int,
    sampling: SamplingSpec,
    stop_ids: Sequence[int],
    seed: int = 0,
    reward_name: str = "the reward",
    progress: Callable[[int, int], None] | None = None,
) -> list[BestAnswer]:
    """The best of `n` sampled answers to every prompt, in their order.

    Raises:
        UserError: the reward is not one finite number per answer.
    """
    best: list[BestAnswer] = []
    for first in range(0, len(prompts), PROMPTS_PER_ROLLOUT):
        if progress is not None:
            progress(first, len(prompts))
        chunk = prompts[first : first + PROMPTS_PER_ROLLOUT]
        [number] = np.random.SeedSequence([seed, first]).generate_state(1, np.uint32).tolist()
        rollout = engine.rollout(
            [[*prompt.ids] for prompt in chunk],
            n,
            max_new_tokens=max_new_tokens,
            sampling=replace(sampling, seed=number),
            stop_ids=stop_ids,
        )
        answers = sampled_answers(chunk, rollout, n, tokenizer)
        rewards_PG = torch.tensor(score_answers(reward, answers, reward_name), dtype=torch.float64).view(-1, n)
        for p, g in enumerate(best_of_n(rewards_PG).tolist()):
            rewards = rewards_PG[p].tolist()
            best.append(BestAnswer(chunk[p], answers[p * n + g], rewards[g], tuple(rewards)))
    if progress is not None:
        progress(len(prompts), len(prompts))
    return best
