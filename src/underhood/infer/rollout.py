"""Rollouts: sampled continuations as padded tensors, for reinforcement learning (PPO, GRPO)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.infer.request import Request, WrittenToken
from underhood.infer.request_handle import QueueFull, RequestHandle
from underhood.infer.sample import SamplingSpec

if TYPE_CHECKING:
    from underhood.infer.engine import Engine


@dataclass(frozen=True)
class Rollout:
    """Continuations of P prompts, n of each: row p · n + i is continuation i of prompt p.

    Attributes:
        ids_NT: the prompt and its continuation, zeros after it.
        mask_NT: tokens of the sequence, padding left out.
        response_mask_NT: tokens of the continuation; the sampled stop token is one of them.
        logprobs_NT: log-probability of each continuation token under the distribution that it was drawn from (after
            temperature and truncation); 0 elsewhere.
        model_logprobs_NT: the same under the model's own distribution.
        finished_N: whether a continuation ended with a stop token.
    """

    ids_NT: Int[Tensor, "N T"]
    mask_NT: Bool[Tensor, "N T"]
    response_mask_NT: Bool[Tensor, "N T"]
    logprobs_NT: Float[Tensor, "N T"]
    model_logprobs_NT: Float[Tensor, "N T"]
    finished_N: Bool[Tensor, "N"]


def collect_rollout(
    engine: Engine,
    prompts: list[list[int]],
    n: int,
    max_new_tokens: int,
    sampling: SamplingSpec,
    stop_ids: frozenset[int],
) -> Rollout:
    """See `Engine.rollout`."""
    handles: list[RequestHandle] = []
    for number, prompt in enumerate(prompts):
        sampling_of_prompt = sampling
        if sampling.seed is not None:  # every prompt draws from streams of its own
            [seed] = np.random.SeedSequence([sampling.seed, number]).generate_state(1, np.uint64).tolist()
            sampling_of_prompt = replace(sampling, seed=seed)
        request = Request(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling_of_prompt,
            stop_ids=stop_ids,
            n=n,
            include_stop_token=True,
            sampling_logprobs=True,
        )
        while True:
            try:
                handles.append(engine.submit(request))
                break
            except QueueFull:
                if engine.threaded:
                    engine.wait_for_work(0.01)
                else:
                    engine.step()
    rows: list[tuple[list[int], list[WrittenToken], bool]] = []
    for handle in handles:
        tokens: list[list[WrittenToken]] = [[] for _ in range(n)]
        for chunk in handle.chunks():
            tokens[chunk.choice] += chunk.tokens
        if handle.error is not None:
            raise handle.error
        rows += [([*handle.request.prompt], tokens[i], handle.finishes[i] == "stop") for i in range(n)]
    return _padded(rows)


def _padded(rows: list[tuple[list[int], list[WrittenToken], bool]]) -> Rollout:
    shape = len(rows), max((len(prompt) + len(tokens) for prompt, tokens, _ in rows), default=0)
    ids_NT = torch.zeros(shape, dtype=torch.int64)
    mask_NT, response_mask_NT = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    logprobs_NT, model_logprobs_NT = torch.zeros(shape), torch.zeros(shape)
    for row, (prompt, tokens, _) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(tokens)
        ids_NT[row, :end] = torch.tensor([*prompt, *(token.id for token in tokens)])
        mask_NT[row, :end] = True
        response_mask_NT[row, start:end] = True
        logprobs_NT[row, start:end] = torch.tensor([token.sampling_logprob or 0.0 for token in tokens])
        model_logprobs_NT[row, start:end] = torch.tensor([token.logprob for token in tokens])
    finished_N = torch.tensor([finished for _, _, finished in rows], dtype=torch.bool)
    return Rollout(ids_NT, mask_NT, response_mask_NT, logprobs_NT, model_logprobs_NT, finished_N)
