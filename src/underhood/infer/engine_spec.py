"""Settings and statistics of the inference engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from underhood.core.errors import UserError
from underhood.infer.request import Finish
from underhood.infer.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How an engine works.

    Attributes:
        max_sequences: sequences that run at the same time.
        max_waiting: sequences that may wait beyond those; more are refused.
        max_batched_tokens: tokens of a step at most, prefill and decode together. It bounds how long a long prompt
            delays the sequences in decode.
        block: tokens per KV block.
        cache_bytes: memory for the KV cache; None takes what the machine can spare.
        prefix_caching: prompts with the same prefix share its KV blocks.
        quantize_cache: KV cache in 8 bits.
        draft_tokens: length of the drafts of speculative decoding, used while few sequences run; 0 for none. The
            output stays the same.

    Raises:
        UserError: a value outside its range.
    """

    max_sequences: int = 32
    max_waiting: int = 1024
    max_batched_tokens: int = 256
    block: int = 16
    cache_bytes: int | None = None
    prefix_caching: bool = True
    quantize_cache: bool = False
    draft_tokens: int = 0

    def __post_init__(self):
        for name in ("max_sequences", "max_waiting", "max_batched_tokens", "block"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is out of range", expected="at least 1", got=str(getattr(self, name)))
        if self.draft_tokens < 0:
            raise UserError(
                "draft_tokens is out of range", expected="a whole number from 0 up", got=str(self.draft_tokens)
            )
        if self.max_batched_tokens <= self.max_sequences:
            raise UserError(
                "max_batched_tokens is out of range",
                expected=f"more than the {self.max_sequences} texts that may run, so that prompts are read beside them",
                got=str(self.max_batched_tokens),
            )


COUNTED = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "prefix_hits",
    "draft_tokens",
    "accepted_tokens",
    "steps",
    "failures",
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
        draft_tokens, accepted_tokens: tokens that were drafted, and of those the accepted ones.
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
    draft_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    failures: int = 0
    finished: dict[Finish, int] = field(default_factory=dict)

    @classmethod
    def of(cls, scheduler: Scheduler, inbox: int, counts: Counter[str], finished: Counter[Finish]) -> "EngineStats":
        """A snapshot; may be taken from any thread."""
        blocks = scheduler.blocks
        return cls(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + inbox,
            blocks_used=blocks.used,
            blocks_cached=blocks.cached,
            blocks_total=blocks.total,
            preemptions=scheduler.preemptions,
            step_seconds=counts["microseconds"] / 1e6,
            finished=dict(finished),
            **{name: counts[name] for name in COUNTED},
        )
