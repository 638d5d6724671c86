"""Requests to the engine and its answers, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.sample import GREEDY, SamplingSpec

if TYPE_CHECKING:
    from underhood.infer.grammar import Grammar

Finish = Literal["stop", "length", "cancelled", "deadline", "error"]
"""Why a text ended: a stop token or stop string; `max_new_tokens` or the model's context; its asker left; its time was
up; the engine failed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt and how it is to be continued.

    Attributes:
        prompt: token ids, at least one.
        max_new_tokens: per choice; the model's context may end it earlier.
        sampling: temperature, truncation, penalties, bias and seed. Choice i of a seeded request draws from the stream
            (seed, i), as prompt i of `generate` does.
        stop_ids: tokens that end a text and are left out of it.
        stop: strings that end a text and are left out of it, wherever token borders fall.
        n: choices to return.
        best_of: choices to write, of which the `n` with the highest mean log-probability are returned; None means n.
            Only such requests give their chunks at the end.
        logprobs: how many of the likeliest tokens to report beside each written one; None reports none, 0 only the
            written token's own.
        grammar: what the text must match, or None.
        include_stop_token: a stop token that was sampled is the last token of the output.
        sampling_logprobs: reports the log-probability of each token under the distribution that it was drawn from.
        cache_salt: prompts share cached beginnings only with prompts of the same cache_salt.
        deadline: `time.monotonic()` at which to give up, or None.
    """

    prompt: Sequence[int]
    max_new_tokens: int = 128
    sampling: SamplingSpec = GREEDY
    stop_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    n: int = 1
    best_of: int | None = None
    logprobs: int | None = None
    grammar: "Grammar | None" = None
    include_stop_token: bool = False
    sampling_logprobs: bool = False
    cache_salt: str = ""
    deadline: float | None = None


@dataclass(frozen=True, kw_only=True)
class WrittenToken:
    """A token of an answer.

    Attributes:
        logprob: natural log-probability under the model itself, before temperature, penalties and masks.
        top: the likeliest tokens there with theirs, best first; as many as `Request.logprobs` asks for.
        sampling_logprob: log-probability under the distribution that it was drawn from, after temperature, penalties
            and truncation; None unless `Request.sampling_logprobs` asks for it.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    sampling_logprob: float | None = None


@dataclass(frozen=True, kw_only=True)
class OutputChunk:
    """The new tokens and text of one choice.

    Attributes:
        choice: 0 to n − 1.
        tokens: the tokens written since the last chunk, stop tokens left out. Their text may still be held back, for as
            long as it could become part of a stop string or of a longer character.
        text: text that is certain now; all chunks of a choice together spell its answer.
        finish: why the choice ended, on its last chunk; None before.
    """

    choice: int = 0
    tokens: tuple[WrittenToken, ...] = ()
    text: str = ""
    finish: Finish | None = None


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


def check_request(request: Request, vocab_size: int) -> None:
    """Raises a `UserError` for a request that can't be met; its prompt is another's to check."""

    def check(good: bool, what: str, expected: str, got: object) -> None:
        if not good:
            raise UserError(f"{what} is out of range", expected=expected, got=str(got))

    check(request.n >= 1, "n", "a whole number from 1 up", request.n)
    if request.best_of is not None:
        check(request.best_of >= request.n, "best_of", f"at least n, which is {request.n}", request.best_of)
    if request.logprobs is not None:
        check(0 <= request.logprobs <= vocab_size, "logprobs", f"0 to {vocab_size}", request.logprobs)
    check(all(request.stop), "stop", "strings of at least one character", request.stop)
    for id, _ in request.sampling.logit_bias:
        check(id < vocab_size, "a token id in logit_bias", f"0 to {vocab_size - 1}", id)
