"""Writing with a model: whole batches at once, or one text token by token."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import AttendingCache, Cache, HiddenStateModel, LanguageModel
from underhood.infer.cache import ContiguousCache, device_of, states_of
from underhood.infer.penalties import Penalties
from underhood.infer.sample import GREEDY, SamplingSpec, choose, uniforms
from underhood.infer.sliding_window_cache import LEAST_CHUNK, SlidingWindowCache, window_of

Finish = Literal["stop", "length"]


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
    finish: Finish = "length"
    logprobs: list[float] = field(default_factory=list)
    stop_id: int | None = None


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    sampling: SamplingSpec = GREEDY,
    stop_ids: Collection[int] = (),
    cache: bool = True,
    batch_size: int = 64,
) -> list[Completion]:
    """Continues every prompt, `batch_size` at a time, in the order given.

    Prompts of like length go together, padded on the left; a row that has ended leaves its batch at once. What a prompt
    gets does not depend on the batch it was in: with a seed, prompt i draws from the stream (seed, i).

    A text ends where the model's context does: positions beyond it were never trained, and dropping the oldest tokens
    silently would change what the rest means. Who wants a sliding text cuts the prompt and calls again.

    Args:
        stop_ids: tokens that end a text; they are not part of it.
        cache: False reads the whole text again for every token (slow; what the cache is tested against).

    Raises:
        UserError: a prompt that is empty or longer than the context.
    """
    check_prompts(model, prompts, max_new_tokens)
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    done = [Completion() for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        rows = [
            _Row(
                index,
                list(prompts[index]),
                done[index],
                room,
                uniforms(sampling.seed, index),
                Penalties(sampling, prompts[index]) if sampling.reshapes else None,
            )
            for index in order[start : start + batch_size]
            if (room := room_for(model, len(prompts[index]), max_new_tokens)) > 0
        ]
        if rows:
            _continue(model, rows, sampling, frozenset(stop_ids), cache)
    if isinstance(model, nn.Module):
        model.train(training)
    return done


@dataclass
class _Row:
    index: int
    prompt: list[int]
    done: Completion
    room: int
    """How many more tokens it may take."""
    draws: Iterator[float]
    penalties: Penalties | None


def _continue(
    model: LanguageModel, rows: list[_Row], sampling: SamplingSpec, stop_ids: frozenset[int], use_cache: bool
) -> None:
    device = device_of(model)
    longest = max(len(row.prompt) for row in rows)
    tokens_BT = torch.tensor([[0] * (longest - len(row.prompt)) + row.prompt for row in rows], device=device)
    uneven = any(len(row.prompt) != longest for row in rows)
    positions_BT: Tensor | None = None
    if uneven:
        lengths_B1 = torch.tensor([[len(row.prompt)] for row in rows], device=device)
        positions_BT = (torch.arange(longest, device=device) - (longest - lengths_B1)).clamp(min=-1)
    store = _cache_to_write(model, len(rows), longest + max(row.room for row in rows)) if use_cache else None
    while True:
        logits_BV = _read(model, tokens_BT, store, positions_BT)
        uniform_B = None
        if not sampling.greedy:
            uniform_B = torch.tensor([next(row.draws) for row in rows], device=device)
        scores_BV = logits_BV
        if sampling.reshapes:
            shaped = [row.penalties(logits_V) for row, logits_V in zip(rows, logits_BV, strict=True) if row.penalties]
            scores_BV = torch.stack(shaped)
        chosen_B = choose(scores_BV, sampling, uniform_B)
        logprob_B = logits_BV.float().log_softmax(dim=-1).gather(-1, chosen_B[:, None])[:, 0]
        keep = []
        for slot, (row, token, logprob) in enumerate(zip(rows, chosen_B.tolist(), logprob_B.tolist(), strict=True)):
            if token in stop_ids:
                row.done.finish, row.done.stop_id = "stop", token
                continue
            row.done.ids.append(token)
            row.done.logprobs.append(logprob)
            if row.penalties is not None:
                row.penalties.push(token)
            if len(row.done.ids) < row.room:
                keep.append(slot)
        if not keep:
            return
        if len(keep) < len(rows):
            keep = _fill_gaps(keep)
            rows = [rows[slot] for slot in keep]
            kept = torch.tensor(keep, device=device)
            chosen_B, tokens_BT = chosen_B[kept], tokens_BT[kept]
            positions_BT = None if positions_BT is None else positions_BT[kept]
            if store is not None:
                store.select(keep)
        if store is not None:
            tokens_BT, positions_BT = chosen_B[:, None], None
        else:
            tokens_BT = torch.cat((tokens_BT, chosen_B[:, None]), dim=1)
            if positions_BT is not None:
                positions_BT = torch.cat((positions_BT, positions_BT[:, -1:] + 1), dim=1)


def _cache_to_write(model: LanguageModel, batch: int, capacity: int) -> ContiguousCache | SlidingWindowCache | None:
    """A cache that is only added to: of a model that looks back through windows only, no more than they show."""
    window = window_of(model)
    if window is not None and window + max(window, LEAST_CHUNK) < capacity:
        return SlidingWindowCache.for_model(model, batch)
    return new_cache(model, batch, capacity)


def _read(
    model: LanguageModel,
    tokens_BT: Tensor,
    cache: ContiguousCache | SlidingWindowCache | None,
    positions_BT: Tensor | None,
) -> Tensor:
    """Scores (B, V) after the last of T new tokens."""
    count = tokens_BT.shape[1]
    while isinstance(cache, SlidingWindowCache) and count > cache.chunk:
        rest_BT = None if positions_BT is None else positions_BT[:, : cache.chunk]
        last_logits(model, tokens_BT[:, : cache.chunk], cache, rest_BT)
        tokens_BT, count = tokens_BT[:, cache.chunk :], count - cache.chunk
        positions_BT = None if positions_BT is None else positions_BT[:, cache.chunk :]
    return last_logits(model, tokens_BT, cache, positions_BT)


def _fill_gaps(keep: list[int]) -> list[int]:
    """The same slots, reordered so that as few as possible move: the last ones go where others have left."""
    count = len(keep)
    stay = {slot for slot in keep if slot < count}
    movers = iter([slot for slot in keep if slot >= count])
    return [slot if slot in stay else next(movers) for slot in range(count)]


def new_cache(model: LanguageModel, batch: int, capacity: int) -> ContiguousCache | None:
    """A cache for the model, or None for one whose needs are not known (it then reads the whole text every time)."""
    return None if states_of(model) is None else ContiguousCache.for_model(model, batch, capacity)


def last_logits(
    model: LanguageModel, tokens_BT: Tensor, cache: Cache | None, positions_BT: Tensor | None, count: int = 1
) -> Tensor:
    """Scores (B · count, V) after each row's `count` last tokens."""
    rows = slice(-count, None) if count < tokens_BT.shape[1] else None
    return logits_at(model, tokens_BT, cache, positions_BT, rows)


def logits_at(
    model: LanguageModel,
    tokens_BT: Tensor,
    cache: Cache | AttendingCache | None,
    positions_BT: Tensor | None,
    rows: Tensor | slice | None,
) -> Tensor:
    """Scores (B · N, V) after N of each row's tokens, or all; where the model allows, only those are worked out."""
    if isinstance(model, HiddenStateModel):
        return model.unembed(
            model.hidden_states(tokens_BT, cache=cache, positions=positions_BT, rows=rows).flatten(0, 1)
        )
    logits_BTV = model(tokens_BT, cache=cache, positions=positions_BT)
    return (logits_BTV if rows is None else logits_BTV[:, rows]).flatten(0, 1)


def room_for(model: LanguageModel, length: int, max_new_tokens: int) -> int:
    """How many tokens a prompt of `length` may get: one more than the context has left, for the last is never read."""
    return max_new_tokens if model.context_length is None else min(max_new_tokens, model.context_length - length + 1)


def check_prompts(model: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raises a `UserError` for a prompt that the model can't continue."""
    if max_new_tokens < 0:
        raise UserError("max_new_tokens is out of range", expected="a whole number from 0 up", got=str(max_new_tokens))
    for index, prompt in enumerate(prompts):
        name = "the prompt" if len(prompts) == 1 else f"prompt {index}"
        if not prompt:
            raise UserError(f"{name} is empty", fix="Begin with at least one token, such as the end-of-text token")
        if model.context_length is not None and len(prompt) > model.context_length:
            raise UserError(
                f"{name} is longer than the model's context",
                expected=f"at most {model.context_length} tokens",
                got=str(len(prompt)),
                fix="Shorten it, or keep only its end",
            )
        if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
            raise UserError(
                f"{name} holds ids outside the vocabulary",
                expected=f"ids from 0 to {model.vocab_size - 1}",
                got=f"{min(prompt)} to {max(prompt)}",
            )
