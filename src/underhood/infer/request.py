"""What is asked of the engine and what it answers, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
        stop_ids: tokens that end a text and are no part of it.
        stop: strings that end a text and are no part of it, wherever token borders fall.
        n: choices to return.
        best_of: choices to write, of which the `n` with the highest mean log-probability are returned; None means n.
            Only such requests give their chunks at the end.
        logprobs: how many of the likeliest tokens to report beside each written one; None reports none, 0 only the
            written token's own.
        grammar: what the text must match, or None.
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
    cache_salt: str = ""
    deadline: float | None = None


@dataclass(frozen=True, kw_only=True)
class WrittenToken:
    """A token of an answer.

    Attributes:
        logprob: natural log-probability under the model itself, before temperature, penalties and masks.
        top: the likeliest tokens there with theirs, best first; as many as `Request.logprobs` asks for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutputChunk:
    """What is new of one choice.

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
