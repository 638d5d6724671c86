"""What an engine is told at its start, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from underhood.core.errors import UserError
from underhood.infer.request import Finish


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How an engine works.

    Attributes:
        max_running: texts that are written at the same time.
        max_waiting: texts that may wait beyond those; more are refused.
        tokens_per_step: read in one step at most, prompts and written tokens together. It bounds how long a long prompt
            can hold up the texts that are being written.
        block: tokens per block of the cache.
        cache_bytes: memory for keys and values; None takes what the machine can spare.
        share_prefixes: whether prompts that begin alike share what has been read.
        quantize_cache: keeps keys and values in 8 bits.
        guesses: tokens guessed at a time and checked in one pass, while few texts are written; 0 guesses nothing. What
            is written stays the same.

    Raises:
        UserError: a value outside its range.
    """

    max_running: int = 32
    max_waiting: int = 1024
    tokens_per_step: int = 256
    block: int = 16
    cache_bytes: int | None = None
    share_prefixes: bool = True
    quantize_cache: bool = False
    guesses: int = 0

    def __post_init__(self):
        for name in ("max_running", "max_waiting", "tokens_per_step", "block"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is out of range", expected="at least 1", got=str(getattr(self, name)))
        if self.guesses < 0:
            raise UserError("guesses is out of range", expected="a whole number from 0 up", got=str(self.guesses))
        if self.tokens_per_step <= self.max_running:
            raise UserError(
                "tokens_per_step is out of range",
                expected=f"more than the {self.max_running} texts that may run, so that prompts are read beside them",
                got=str(self.tokens_per_step),
            )


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """What an engine has done since it was made, and what it is doing.

    Attributes:
        running: texts being read or written.
        waiting: texts that have not begun, or have been put back.
        blocks_used, blocks_cached, blocks_total: of the cache: in use, kept for prompts that begin alike, and in all.
        prompt_tokens, cached_tokens, completion_tokens: as in `Usage`, of all requests that have begun.
        prefix_hits: requests whose beginning was in the cache when they began.
        preemptions: times that a text was put back for want of memory.
        guessed_tokens, kept_tokens: that a draft guessed, and of those the ones that were right.
        steps: passes through the model.
        step_seconds: spent in them.
        failures: passes that raised.
        finished: returned choices that have ended, by how.
    """

    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    blocks_total: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    guessed_tokens: int = 0
    kept_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    failures: int = 0
    finished: dict[Finish, int] = field(default_factory=dict)
