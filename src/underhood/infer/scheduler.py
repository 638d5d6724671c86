"""Who goes next: which texts are read or written in a step, and where their keys and values lie. No tensors here.

A step holds one token of every text that is being written, then as much of unread prompts as its budget allows (Yu et
al. 2022, Orca: continuous batching; Agrawal et al. 2023, Sarathi: prompts in chunks, so that a long one doesn't hold up
the others). Texts begin in the order in which they came. When memory runs out, the text that came last is put back and
read again later; so the oldest always moves, and everyone becomes the oldest in the end: nobody starves.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from underhood.infer.blocks import BlockPool, Link

State = Literal["waiting", "running", "done"]

MOST_AHEAD = 32
"""Blocks kept free after a text's last one at most, for it to grow into."""

FEW = 4
"""Texts that run while guessing pays: with more of them, a pass has enough to read as it is."""

Guesser = Callable[["Stream", int], Sequence[int]]
"""Guesses how a text goes on: at most so many tokens."""


@dataclass(eq=False, kw_only=True)
class Stream:
    """One text on its way through the engine.

    Attributes:
        tokens: the prompt and what has been written.
        prompt: tokens of the prompt.
        limit: tokens it may grow to at most.
        salt: it shares cached beginnings with texts of the same salt only.
        leader: another choice for the same prompt, which reads it for both.
        read: how many of its tokens have their keys and values in the cache.
        cached: how many of its prompt's did not have to be read when it first began.
        blocks: where those are, and where the next ones go.
        runs: the same as (first block, count) of neighbours.
        dropped: how many blocks before those have been given back, for no token looks so far back any more.
    """

    tokens: list[int]
    prompt: int
    limit: int
    salt: str = ""
    leader: "Stream | None" = None
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
class Turn:
    """What a stream does in a step: `count` tokens from its `start`-th on are read, and what may follow them."""

    stream: Stream
    start: int
    count: int
    guess: tuple[int, ...] = ()

    @property
    def last(self) -> bool:
        """Nothing is left to read afterwards, so the next token can be chosen."""
        return self.start + self.count == len(self.stream.tokens)


@dataclass
class Plan:
    """A step.

    Attributes:
        turns: decodes first.
        copies: (from, to): blocks to be copied before anything is written.
    """

    turns: list[Turn] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)


class Scheduler:
    """Plans steps.

    Args:
        pool: the cache's blocks.
        tokens_per_step: budget of a step; more than `max_running`, so that prompts move on beside a full house.
        share: looks for beginnings that are on file.
        window: tokens that a token sees at most, itself included; None for all before it. What nobody sees any more is
            given back while the text goes on.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_running: int,
        tokens_per_step: int,
        share: bool = True,
        window: int | None = None,
    ):
        if tokens_per_step <= max_running:
            raise ValueError(f"tokens_per_step must be more than max_running, got {tokens_per_step} and {max_running}")
        self.pool, self.max_running, self.tokens_per_step, self.share = pool, max_running, tokens_per_step, share
        self.window = window
        self.running: list[Stream] = []
        self.waiting: list[Stream] = []  # both in order of arrival
        self.preemptions = 0
        self._arrived = 0

    def fits(self, limit: int) -> bool:
        """Whether a text that grows to `limit` tokens can be held at all (its last token is never read)."""
        return self._blocks_for(limit - 1) <= self.pool.total

    def add(self, stream: Stream) -> None:
        """A new text arrives."""
        assert self.fits(stream.limit), "who can't ever run would block everyone behind it"
        stream.number = self._arrived
        self._arrived += 1
        self.waiting.append(stream)

    def plan(self, guesser: Guesser | None = None) -> Plan:
        """The next step; what it names is in the cache only after `advance`.

        Args:
            guesser: asked about texts that are being written, while they are few.
        """
        plan = Plan()
        budget = self.tokens_per_step
        preemptions = self.preemptions
        for stream in list(self.running):
            if stream.state == "running" and stream.unread == 1 and self._make_room(stream, plan):
                plan.turns.append(Turn(stream, stream.read, 1))
                budget -= 1
        if guesser is not None and len(self.running) <= FEW:
            for place, turn in enumerate(plan.turns):
                plan.turns[place] = self._guess(turn, guesser, budget - 1)
                budget -= len(plan.turns[place].guess)
        for stream in self.running:
            if stream.unread > 1 and budget:
                budget -= self._chunk(stream, budget, plan)
        if self.preemptions == preemptions:
            for stream in list(self.waiting):
                if not budget or len(self.running) >= self.max_running:
                    break
                found, link = self.pool.match(stream.tokens, stream.salt) if self.share else ([], None)
                if self._is_being_read(stream, len(found)):
                    self.pool.release(found)
                    continue
                if not self._begin(stream, found, link):
                    break
                budget -= self._chunk(stream, budget, plan)
        return plan

    def advance(self, plan: Plan) -> None:
        """The step has been taken: what it read is in the cache now."""
        for turn in plan.turns:
            self.count_read(turn.stream, turn.count)

    def count_read(self, stream: Stream, count: int) -> None:
        """`count` more of a text's tokens are in the cache: those of its turn, or a guess that was right."""
        size = self.pool.size
        stream.read += count
        while self.share and stream.link is not None and stream.read >= (stream.recorded + 1) * size:
            start = stream.recorded * size
            chunk = stream.tokens[start : start + size]
            stream.link = self.pool.record(stream.link, chunk, stream.blocks[stream.recorded - stream.dropped])
            stream.recorded += 1
        self._drop_unseen(stream)

    def fork(self, leader: Stream, follower: Stream) -> bool:
        """Lets a waiting text go on from where its leader, which has just read their prompt, is; no block is copied.

        False when there is no place for one more; it then begins by itself later.
        """
        if follower.state != "waiting" or len(self.running) >= self.max_running:
            return False
        assert leader.read == follower.prompt == len(leader.tokens), "it has read the prompt and nothing else"
        self.pool.share(leader.blocks)
        follower.blocks, follower.runs = list(leader.blocks), list(leader.runs)
        follower.read, follower.recorded, follower.link = leader.read, leader.recorded, leader.link
        follower.dropped = leader.dropped
        follower.cached = leader.read
        self.waiting.remove(follower)
        self._run(follower)
        return True

    def end(self, stream: Stream) -> None:
        """A text is done, for whatever reason; its blocks are free at once. Harmless if it was done before."""
        if stream.state == "done":
            return
        (self.running if stream.state == "running" else self.waiting).remove(stream)
        self._let_go(stream)
        stream.state = "done"

    def streams(self) -> Iterable[Stream]:
        """All that are not done, in order of arrival within running and waiting."""
        return [*self.running, *self.waiting]

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.pool.size)

    def _chunk(self, stream: Stream, budget: int, plan: Plan) -> int:
        """Plans as much of an unread text as the budget allows; its blocks it has from the beginning."""
        count = min(stream.unread, budget)
        plan.turns.append(Turn(stream, stream.read, count))
        return count

    def _guess(self, turn: Turn, guesser: Guesser, budget: int) -> Turn:
        """The turn with a guess, where there is one and room for it; nobody is put back for a guess."""
        stream = turn.stream
        most = min(budget, stream.limit - 1 - len(stream.tokens))
        if most < 1 or stream.state != "running" or len(stream.tokens) == stream.prompt:
            return turn
        guess = tuple(guesser(stream, most))
        held = stream.dropped + len(stream.blocks)
        missing = self._blocks_for(len(stream.tokens) + len(guess)) - held
        if missing > 0:
            taken = self.pool.take(missing, after=stream.blocks[-1], ahead=self._ahead(stream))
            if taken is None:
                guess = guess[: held * self.pool.size - len(stream.tokens)]
            else:
                self._extend(stream, taken)
        return Turn(stream, turn.start, turn.count, guess)

    def _is_being_read(self, stream: Stream, found: int) -> bool:
        """Whether another text is reading what this one begins with, beyond what is on file: it does well to wait."""
        leader = stream.leader
        if leader is not None and leader.state != "done" and leader.read < stream.prompt:
            return True
        end = (found + 1) * self.pool.size
        return (
            self.share
            and end < len(stream.tokens)
            and any(
                other.unread > 1
                and other.read < end <= len(other.tokens)
                and other.salt == stream.salt
                and other.tokens[:end] == stream.tokens[:end]
                for other in self.running
            )
        )

    def _begin(self, stream: Stream, found: list[int], link: Link | None) -> bool:
        """Starts a waiting text, if all it has so far finds room and leaves the others one block each to grow.

        Args:
            found, link: blocks that hold its beginning, already its own; given back if there is no room.
        """
        count = self._blocks_for(len(stream.tokens)) - len(found)
        spare = len(self.running)
        taken = None
        if count + spare <= self.pool.available:
            taken = self.pool.take(count, after=found[-1] if found else None, ahead=self._ahead(stream))
        if taken is None:
            self.pool.release(found)
            return False
        self._extend(stream, found + taken)
        stream.read = len(found) * self.pool.size
        stream.recorded, stream.link = len(found), link
        if stream.cached is None:
            stream.cached = stream.read
        self._drop_unseen(stream)
        self.waiting.remove(stream)
        self._run(stream)
        return True

    def _run(self, stream: Stream) -> None:
        stream.state = "running"
        bisect.insort(self.running, stream, key=lambda other: other.number)

    def _make_room(self, stream: Stream, plan: Plan) -> bool:
        """A block to write the next token into, of its own; False if the stream had to be put back itself."""
        place = stream.read // self.pool.size - stream.dropped
        fresh = place == len(stream.blocks)
        if not fresh and self.pool.references(stream.blocks[place]) == 1:
            return True
        after = stream.blocks[-1] if fresh and stream.blocks else None
        while (taken := self.pool.take(1, after=after, ahead=self._ahead(stream))) is None:
            last = self.running[-1]
            self._put_back(last)
            if last is stream:
                return False
        if fresh:
            self._extend(stream, taken)
            return True
        # The block is shared: copy on write.
        assert place == len(stream.blocks) - 1, "only the last block of a text is ever written"
        plan.copies.append((stream.blocks[place], taken[0]))
        self.pool.release([stream.blocks[place]])
        kept = stream.blocks[:place]
        stream.blocks, stream.runs = [], []
        self._extend(stream, kept + taken)
        return True

    def _ahead(self, stream: Stream) -> int:
        """Blocks it may still want after those for the tokens it has; a prompt that is long asks for no more."""
        wanted = self._blocks_for(stream.limit - 1) - self._blocks_for(len(stream.tokens))
        return max(0, min(wanted, MOST_AHEAD, self.pool.total // (2 * self.max_running)))

    def _put_back(self, stream: Stream) -> None:
        """Preemption by recomputation: everything it has read is given up, to be read again."""
        self.preemptions += 1
        self.running.remove(stream)
        self._let_go(stream)
        stream.state = "waiting"
        bisect.insort(self.waiting, stream, key=lambda other: other.number)

    def _let_go(self, stream: Stream) -> None:
        self.pool.release(stream.blocks)
        stream.blocks, stream.runs = [], []
        stream.read = stream.recorded = stream.dropped = 0
        stream.link = None

    def _drop_unseen(self, stream: Stream) -> None:
        """Gives back what lies behind the window; what is on file there stays readable until the room is needed."""
        if self.window is None:
            return
        count = max(0, stream.read - self.window + 1) // self.pool.size - stream.dropped
        if count > 0:
            self.pool.release(stream.blocks[:count])
            kept = stream.blocks[count:]
            stream.blocks, stream.runs = [], []
            stream.dropped += count
            self._extend(stream, kept)

    def _extend(self, stream: Stream, blocks: list[int]) -> None:
        for block in blocks:
            stream.blocks.append(block)
            if stream.runs and sum(stream.runs[-1]) == block:
                first, count = stream.runs[-1]
                stream.runs[-1] = (first, count + 1)
            else:
                stream.runs.append((block, 1))
