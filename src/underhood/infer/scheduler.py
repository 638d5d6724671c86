"""Scheduler of the engine: the sequences that are prefilled or decoded in a step, and their cache blocks.

A step holds one token of every text that is being written, then as much of unread prompts as its budget allows (Yu et
al. 2022, Orca: continuous batching; Agrawal et al. 2023, Sarathi: prompts in chunks, so that a long one doesn't hold up
the others). Texts begin in the order in which they came. When memory runs out, the text that came last is put back and
read again later; so the oldest always moves, and everyone becomes the oldest in the end: nobody starves.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from underhood.core.errors import UserError
from underhood.infer.block_manager import BlockManager, Link

State = Literal["waiting", "running", "done"]

RESERVED_BLOCKS_MAX = 32
"""Blocks reserved at most after a sequence's last one, for it to grow into."""

DRAFT_SEQUENCES_MAX = 4
"""Running sequences up to which drafts pay: with more of them a pass is compute-bound already."""

DraftFn = Callable[["Sequence", list[int], int], list[int]]
"""Draft tokens after a sequence's tokens, at most so many."""


@dataclass(eq=False, kw_only=True)
class Sequence:
    """One text on its way through the engine.

    Attributes:
        tokens: the prompt and what has been written.
        prompt: tokens of the prompt.
        limit: tokens it may grow to at most.
        cache_salt: it shares cached beginnings with texts of the same cache_salt only.
        parent: another choice for the same prompt, which reads it for both.
        read: how many of its tokens have their keys and values in the cache.
        cached: how many of its prompt's did not have to be read when it first began.
        blocks: where those are, and where the next ones go.
        runs: the same as (first block, count) of neighbours.
        dropped: how many blocks before those have been given back, for no token looks so far back any more.
    """

    tokens: list[int]
    prompt: int
    limit: int
    cache_salt: str = ""
    parent: "Sequence | None" = None
    number: int = -1
    state: State = "waiting"
    read: int = 0
    cached: int | None = None
    blocks: list[int] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    dropped: int = 0
    link: Link | None = None
    recorded: int = 0

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.read


@dataclass(frozen=True)
class ScheduledSequence:
    """What a sequence does in a step: `count` tokens from its `start`-th on are read, and what may follow them."""

    sequence: Sequence
    start: int
    count: int
    draft: tuple[int, ...] = ()

    @property
    def last(self) -> bool:
        """Nothing is left to read afterwards, so the next token can be chosen."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass
class ScheduledBatch:
    """A step.

    Attributes:
        scheduled: decodes first.
        copies: (from, to): blocks to be copied before anything is written.
    """

    scheduled: list[ScheduledSequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)


class Scheduler:
    """Plans steps.

    Args:
        blocks: the cache's blocks.
        max_batched_tokens: budget of a step; more than `max_sequences`, so that prompts move on beside a full house.
        share: looks for beginnings that are on file.
        window: tokens that a token sees at most, itself included; None for all before it. What nobody sees any more is
            given back while the text goes on.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_sequences: int,
        max_batched_tokens: int,
        share: bool = True,
        window: int | None = None,
    ):
        if max_batched_tokens <= max_sequences:
            raise ValueError(
                f"max_batched_tokens must be more than max_sequences, got {max_batched_tokens} and {max_sequences}"
            )
        self.blocks, self.share, self.window = blocks, share, window
        self.max_sequences, self.max_batched_tokens = max_sequences, max_batched_tokens
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []  # both in order of arrival
        self.preemptions = 0
        self._arrived = 0

    def fits(self, limit: int) -> bool:
        """Whether a text that grows to `limit` tokens can be held at all (its last token is never read)."""
        return self._blocks_for(limit - 1) <= self.blocks.total

    def check_fits(self, limit: int) -> None:
        """Raises a `UserError` for a sequence that could grow longer than the whole cache."""
        if not self.fits(limit):
            raise UserError(
                "the text may grow longer than the cache has room for",
                expected=f"at most {self.blocks.total * self.blocks.size} tokens",
                got=str(limit),
                fix="Ask for fewer tokens, or give the engine more memory",
            )

    def add(self, sequence: Sequence) -> None:
        """A new text arrives."""
        assert self.fits(sequence.limit), "who can't ever run would block everyone behind it"
        sequence.number = self._arrived
        self._arrived += 1
        self.waiting.append(sequence)

    def schedule(self, draft_fn: DraftFn | None = None) -> ScheduledBatch:
        """The next batch; its tokens are in the cache only after `advance`.

        Args:
            draft_fn: drafts for the sequences in decode, while these are few.
        """
        batch = ScheduledBatch()
        budget = self.max_batched_tokens
        preemptions = self.preemptions
        for sequence in list(self.running):
            if sequence.state == "running" and sequence.unread == 1 and self._make_room(sequence, batch):
                batch.scheduled.append(ScheduledSequence(sequence, sequence.read, 1))
                budget -= 1
        if draft_fn is not None and len(self.running) <= DRAFT_SEQUENCES_MAX:
            for index, item in enumerate(batch.scheduled):
                batch.scheduled[index] = self._add_draft(item, draft_fn, budget - 1)
                budget -= len(batch.scheduled[index].draft)
        for sequence in self.running:
            if sequence.unread > 1 and budget:
                budget -= self._chunk(sequence, budget, batch)
        if self.preemptions == preemptions:
            for sequence in list(self.waiting):
                if not budget or len(self.running) >= self.max_sequences:
                    break
                matched, link = self.blocks.match(sequence.tokens, sequence.cache_salt) if self.share else ([], None)
                if self._is_being_read(sequence, len(matched)):
                    self.blocks.release(matched)
                    continue
                if not self._begin(sequence, matched, link):
                    break
                budget -= self._chunk(sequence, budget, batch)
        return batch

    def advance(self, batch: ScheduledBatch) -> None:
        """The batch has run: its tokens are in the cache now."""
        for item in batch.scheduled:
            self.count_read(item.sequence, item.count)

    def count_read(self, sequence: Sequence, count: int) -> None:
        """`count` more of a text's tokens are in the cache: those of its item, or an accepted draft."""
        size = self.blocks.size
        sequence.read += count
        while self.share and sequence.link is not None and sequence.read >= (sequence.recorded + 1) * size:
            start = sequence.recorded * size
            chunk = sequence.tokens[start : start + size]
            sequence.link = self.blocks.record(
                sequence.link, chunk, sequence.blocks[sequence.recorded - sequence.dropped]
            )
            sequence.recorded += 1
        self._drop_unseen(sequence)

    def fork(self, parent: Sequence, fork: Sequence) -> bool:
        """Lets a waiting text go on from where its parent, which has just read their prompt, is; no block is copied.

        False when there is no place for one more; it then begins by itself later.
        """
        if fork.state != "waiting" or len(self.running) >= self.max_sequences:
            return False
        assert parent.read == fork.prompt == len(parent.tokens), "it has read the prompt and nothing else"
        self.blocks.share(parent.blocks)
        fork.blocks, fork.runs = list(parent.blocks), list(parent.runs)
        fork.read, fork.recorded, fork.link = parent.read, parent.recorded, parent.link
        fork.dropped = parent.dropped
        fork.cached = parent.read
        self.waiting.remove(fork)
        self._run(fork)
        return True

    def end(self, sequence: Sequence) -> None:
        """A text is done, for whatever reason; its blocks are free at once. Harmless if it was done before."""
        if sequence.state == "done":
            return
        (self.running if sequence.state == "running" else self.waiting).remove(sequence)
        self._let_go(sequence)
        sequence.state = "done"

    def recompute_all(self) -> None:
        """Preempts every running sequence: all of their tokens are read again."""
        for sequence in reversed(list(self.running)):
            self._put_back(sequence)

    def sequences(self) -> Iterable[Sequence]:
        """All that are not done, in order of arrival within running and waiting."""
        return [*self.running, *self.waiting]

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.blocks.size)

    def _chunk(self, sequence: Sequence, budget: int, batch: ScheduledBatch) -> int:
        """Plans as much of an unread text as the budget allows; its blocks it has from the beginning."""
        count = min(sequence.unread, budget)
        batch.scheduled.append(ScheduledSequence(sequence, sequence.read, count))
        return count

    def _add_draft(self, item: ScheduledSequence, draft_fn: DraftFn, budget: int) -> ScheduledSequence:
        """The item with a draft, where there is one and room for it; no sequence is preempted for a draft."""
        sequence = item.sequence
        most = min(budget, sequence.limit - 1 - len(sequence.tokens))
        if most < 1 or sequence.state != "running" or len(sequence.tokens) == sequence.prompt:
            return item
        draft = tuple(draft_fn(sequence, sequence.tokens, most))
        held = sequence.dropped + len(sequence.blocks)
        missing = self._blocks_for(len(sequence.tokens) + len(draft)) - held
        if missing > 0:
            taken = self.blocks.take(missing, after=sequence.blocks[-1], ahead=self._ahead(sequence))
            if taken is None:
                draft = draft[: held * self.blocks.size - len(sequence.tokens)]
            else:
                self._extend(sequence, taken)
        return ScheduledSequence(sequence, item.start, item.count, draft)

    def _is_being_read(self, sequence: Sequence, matched: int) -> bool:
        """Whether another text is reading what this one begins with, beyond what is on file: it does well to wait."""
        parent = sequence.parent
        if parent is not None and parent.state != "done" and parent.read < sequence.prompt:
            return True
        end = (matched + 1) * self.blocks.size
        return (
            self.share
            and end < len(sequence.tokens)
            and any(
                other.unread > 1
                and other.read < end <= len(other.tokens)
                and other.cache_salt == sequence.cache_salt
                and other.tokens[:end] == sequence.tokens[:end]
                for other in self.running
            )
        )

    def _begin(self, sequence: Sequence, matched: list[int], link: Link | None) -> bool:
        """Starts a waiting text, if all it has so far finds room and leaves the others one block each to grow.

        Args:
            found, link: blocks that hold its beginning, already its own; given back if there is no room.
        """
        count = self._blocks_for(len(sequence.tokens)) - len(matched)
        spare = len(self.running)
        taken = None
        if count + spare <= self.blocks.available:
            taken = self.blocks.take(count, after=matched[-1] if matched else None, ahead=self._ahead(sequence))
        if taken is None:
            self.blocks.release(matched)
            return False
        self._extend(sequence, matched + taken)
        sequence.read = len(matched) * self.blocks.size
        sequence.recorded, sequence.link = len(matched), link
        if sequence.cached is None:
            sequence.cached = sequence.read
        self._drop_unseen(sequence)
        self.waiting.remove(sequence)
        self._run(sequence)
        return True

    def _run(self, sequence: Sequence) -> None:
        sequence.state = "running"
        bisect.insort(self.running, sequence, key=lambda other: other.number)

    def _make_room(self, sequence: Sequence, batch: ScheduledBatch) -> bool:
        """A block to write the next token into, of its own; False if the sequence had to be put back itself."""
        index = sequence.read // self.blocks.size - sequence.dropped
        fresh = index == len(sequence.blocks)
        if not fresh and self.blocks.references(sequence.blocks[index]) == 1:
            return True
        after = sequence.blocks[-1] if fresh and sequence.blocks else None
        while (taken := self.blocks.take(1, after=after, ahead=self._ahead(sequence))) is None:
            last = self.running[-1]
            self._put_back(last)
            if last is sequence:
                return False
        if fresh:
            self._extend(sequence, taken)
            return True
        # The block is shared: copy on write.
        assert index == len(sequence.blocks) - 1, "only the last block of a text is ever written"
        batch.copies.append((sequence.blocks[index], taken[0]))
        self.blocks.release([sequence.blocks[index]])
        kept = sequence.blocks[:index]
        sequence.blocks, sequence.runs = [], []
        self._extend(sequence, kept + taken)
        return True

    def _ahead(self, sequence: Sequence) -> int:
        """Blocks it may still want after those for the tokens it has; a prompt that is long asks for no more."""
        wanted = self._blocks_for(sequence.limit - 1) - self._blocks_for(len(sequence.tokens))
        return max(0, min(wanted, RESERVED_BLOCKS_MAX, self.blocks.total // (2 * self.max_sequences)))

    def _put_back(self, sequence: Sequence) -> None:
        """Preemption by recomputation: everything it has read is given up, to be read again."""
        self.preemptions += 1
        self.running.remove(sequence)
        self._let_go(sequence)
        sequence.state = "waiting"
        bisect.insort(self.waiting, sequence, key=lambda other: other.number)

    def _let_go(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks, sequence.runs = [], []
        sequence.read = sequence.recorded = sequence.dropped = 0
        sequence.link = None

    def _drop_unseen(self, sequence: Sequence) -> None:
        """Gives back the blocks behind the window; what is on file there stays readable until the room is needed."""
        if self.window is None:
            return
        count = max(0, sequence.read - self.window + 1) // self.blocks.size - sequence.dropped
        if count > 0:
            self.blocks.release(sequence.blocks[:count])
            kept = sequence.blocks[count:]
            sequence.blocks, sequence.runs = [], []
            sequence.dropped += count
            self._extend(sequence, kept)

    def _extend(self, sequence: Sequence, blocks: list[int]) -> None:
        for block in blocks:
            sequence.blocks.append(block)
            if sequence.runs and sum(sequence.runs[-1]) == block:
                first, count = sequence.runs[-1]
                sequence.runs[-1] = (first, count + 1)
            else:
                sequence.runs.append((block, 1))
