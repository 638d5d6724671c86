"""Generation for whole batches of prompts: the same decode loop, many sequences side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.decode import SamplingStrategy, decode
from underhood.infer.grammar import Grammar
from underhood.infer.request import Request, check_prompts, room_for
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.sampler import SequenceSampler
from underhood.infer.sequence_runner import SequenceRunner

BATCH_SIZE = 64


@dataclass
class Completion:
    """What a model wrote after one prompt.

    Attributes:
        ids: the new tokens, without the prompt and without the stop token.
        finish: "stop" at a stop token; "length" at `max_new_tokens` or at the end of the model's context.
        logprobs: natural-log probability of each new token under the model itself (before temperature and truncation).
        stop_id: the stop token that ended it, or None.
    """

    ids: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"
    logprobs: list[float] = field(default_factory=list)
    stop_id: int | None = None


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    sampling: SamplingSpec = GREEDY,
    stop_ids: Collection[int] = (),
    cache: bool = True,
    batch_size: int = BATCH_SIZE,
    grammars: Sequence[Grammar | None] | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[Completion]:
    """Continues every prompt, `batch_size` at a time, in the order given.

    Prompts of like length go together, padded on the left; a sequence that has finished leaves its batch at once. What
    a prompt gets does not depend on the batch it was in: with a seed, prompt i draws from the stream (seed, i).

    A sequence ends where the model's context does: positions beyond it were never trained, and dropping the oldest
    tokens silently would change what the rest means. For a sliding text, cut the prompt and call again.

    Args:
        stop_ids: tokens that end a sequence; they are not part of it.
        cache: False reads the whole sequence again for every token (slow; what the cache is tested against).
        grammars: what each continuation must match, or None; they need the tokenizer.

    Raises:
        UserError: a prompt that is empty or longer than the context.
    """
    check_prompts(model, prompts, max_new_tokens)
    samplers = [
        SequenceSampler(
            Request(
                prompt=prompt,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop_ids=frozenset(stop_ids),
                grammar=grammar,
            ),
            index,
            tokenizer if grammar is not None else None,
            room=room_for(model, len(prompt), max_new_tokens),
        )
        for index, (prompt, grammar) in enumerate(zip(prompts, grammars or [None] * len(prompts), strict=True))
    ]
    training = isinstance(model, nn.Module) and model.training
    waiting = [sampler for sampler in samplers if sampler.room > 0]
    waiting.sort(key=lambda sampler: len(sampler.request.prompt))
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        capacity = len(batch[-1].request.prompt) + max(sampler.room for sampler in batch)
        runner = SequenceRunner(model, batch=len(batch), capacity=capacity, use_cache=cache, rewinds=False)
        for _ in decode(runner, SamplingStrategy(batch)):
            pass
    if isinstance(model, nn.Module):
        model.train(training)
    return [
        Completion(
            [token.id for token in sampler.tokens],
            "stop" if sampler.finish == "stop" else "length",
            [token.logprob for token in sampler.tokens],
            sampler.stop_id,
        )
        for sampler in samplers
    ]
