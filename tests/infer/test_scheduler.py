"""The scheduler alone, without a model: random arrivals, and everyone gets their item."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.infer.block_manager import BlockManager
from underhood.infer.scheduler import DraftFn, ScheduledBatch, Scheduler, Sequence


def sequence(prompt: int, new: int, rng: random.Random | None = None, parent: Sequence | None = None) -> Sequence:
    # Half of them begin alike, as far as they go.
    fixed = 4 * rng.randrange(4) if rng else 0
    tokens = [rng.randrange(3) if rng and index >= fixed else index for index in range(prompt)]
    return Sequence(tokens=tokens, prompt=prompt, limit=prompt + new, parent=parent)


def take(scheduler: Scheduler, batch: ScheduledBatch) -> None:
    """What the engine does with a batch: every text that was read to its end gets one token more, or is done.

    A guess is right as long as it goes on as all these texts do.
    """
    scheduler.advance(batch)
    for item in batch.scheduled:
        for guessed in (*item.draft, None):
            if item.sequence.unread or item.sequence.state != "running":
                break
            item.sequence.tokens.append(len(item.sequence.tokens) % 3)
            if len(item.sequence.tokens) >= item.sequence.limit:
                scheduler.end(item.sequence)
            elif item.sequence.tokens[-1] == guessed:
                scheduler.count_read(item.sequence, 1)


def drafting(rng: random.Random) -> DraftFn:
    """A draft that is often right for a while."""

    def draft_fn(sequence: Sequence, tokens: list[int], most: int) -> list[int]:
        count = rng.randint(0, min(most, 6))
        right = [(len(tokens) + index) % 3 for index in range(count)]
        return right if rng.random() < 0.5 else [*right[: count // 2], *[9] * (count - count // 2)]

    return draft_fn


def check(scheduler: Scheduler, batch: ScheduledBatch) -> None:
    """What must hold of every batch."""
    manager = scheduler.blocks
    assert sum(item.count + len(item.draft) for item in batch.scheduled) <= scheduler.max_batched_tokens
    assert len(scheduler.running) <= scheduler.max_sequences
    assert len({id(item.sequence) for item in batch.scheduled}) == len(batch.scheduled)
    counts = [item.count for item in batch.scheduled]
    decodes = [item for item in batch.scheduled if item.sequence.tokens[item.sequence.prompt :] and item.count == 1]
    assert [item.count for item in batch.scheduled[: len(decodes)]] == counts[: len(decodes)]
    for item in batch.scheduled:
        assert item.sequence.state == "running"
        end = item.start + item.count + len(item.draft)
        first, last = (location // manager.size - item.sequence.dropped for location in (item.start, end - 1))
        assert last < len(item.sequence.blocks)
        assert end < item.sequence.limit
        if scheduler.window is not None:
            unseen = max(0, item.start - scheduler.window + 1) // manager.size
            assert item.sequence.dropped == unseen, "what is seen stays, and nothing else"
        for block in item.sequence.blocks[first : last + 1]:
            assert manager.references(block) == 1, "what is written belongs to one text"
        ranges = [block for first, count in item.sequence.runs for block in range(first, first + count)]
        assert ranges == item.sequence.blocks


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    total=st.integers(8, 40),
    max_sequences=st.integers(1, 6),
    extra=st.integers(1, 20),
    share=st.booleans(),
    draft_tokens=st.booleans(),
    window=st.one_of(st.none(), st.integers(1, 30)),
)
def test_scheduler_starves_nobody_under_random_arrivals_and_cancels(
    seed: int, total: int, max_sequences: int, extra: int, share: bool, draft_tokens: bool, window: int | None
) -> None:
    rng = random.Random(seed)
    manager = BlockManager(total, 4)
    budget = max_sequences + extra
    scheduler = Scheduler(manager, max_sequences=max_sequences, max_batched_tokens=budget, share=share, window=window)
    draft_fn = drafting(rng) if draft_tokens else None
    everyone: list[Sequence] = []
    oldest: tuple[Sequence | None, int] = (None, 0)
    for _ in range(150):
        for _ in range(rng.choice([0, 0, 0, 1, 1, 4])):
            length = rng.randint(1, 2 * total)
            new = sequence(length, rng.randint(1, 4 * total - length), rng)
            scheduler.add(new)
            everyone.append(new)
        if everyone and rng.random() < 0.1:
            scheduler.end(rng.choice(everyone))
        batch = scheduler.schedule(draft_fn)
        check(scheduler, batch)
        take(scheduler, batch)
        # Whoever is the oldest needs at most a step per token, once those are done who were reading the same beginning:
        # nobody else goes before it, nothing takes its memory.
        first = min(scheduler.sequences(), key=lambda item: item.number, default=None)
        oldest = (first, oldest[1] + 1 if first is oldest[0] else 0)
        assert first is None or oldest[1] <= 2 * first.limit
    for _ in range(sum(item.limit for item in scheduler.sequences())):
        take(scheduler, scheduler.schedule(draft_fn))
    assert not scheduler.sequences()
    assert all(item.state == "done" for item in everyone)
    assert manager.used == 0


def test_scheduler_puts_decodes_first_and_prompts_in_order_of_arrival() -> None:
    scheduler = Scheduler(BlockManager(100, 4), max_sequences=4, max_batched_tokens=10)
    writing, long, short = sequence(3, 50), sequence(30, 5), sequence(4, 5)
    scheduler.add(writing)
    take(scheduler, scheduler.schedule())
    scheduler.add(long)
    scheduler.add(short)
    seen = []
    for _ in range(5):
        batch = scheduler.schedule()
        seen.append([(item.sequence, item.count) for item in batch.scheduled])
        take(scheduler, batch)
    assert seen[:3] == [[(writing, 1), (long, 9)]] * 3
    assert seen[3] == [(writing, 1), (long, 3), (short, 4)]
    assert seen[4] == [(writing, 1), (long, 1), (short, 1)]


def test_scheduler_lets_one_read_what_many_begin_with() -> None:
    scheduler = Scheduler(BlockManager(100, 4), max_sequences=8, max_batched_tokens=20)
    texts = [Sequence(tokens=[*range(40), 50 + index], prompt=41, limit=45) for index in range(3)]
    other = sequence(4, 5)
    other.tokens = [9, 9, 9, 9]
    for text in (*texts, other):
        scheduler.add(text)
    counts = []
    while any(text.state == "waiting" or text.unread > 1 for text in texts):
        batch = scheduler.schedule()
        counts.append({item.sequence.number: item.count for item in batch.scheduled})
        take(scheduler, batch)
    # 41 tokens of the first take three steps; of the second and third only one is left. The last is not held up.
    assert counts == [{0: 20}, {0: 20}, {0: 1, 1: 1, 2: 1, 3: 4}]
    assert [text.cached for text in texts] == [0, 40, 40]
    # Without sharing, everyone reads everything.
    alone = Scheduler(BlockManager(100, 4), max_sequences=8, max_batched_tokens=200, share=False)
    for _ in range(3):
        alone.add(Sequence(tokens=list(range(41)), prompt=41, limit=45))
    assert [item.count for item in alone.schedule().scheduled] == [41, 41, 41]


def test_scheduler_puts_the_last_comer_back_when_memory_runs_out_and_reads_it_again() -> None:
    scheduler = Scheduler(BlockManager(6, 4), max_sequences=2, max_batched_tokens=30, share=False)
    first, second = sequence(8, 16), sequence(8, 16)
    scheduler.add(first)
    scheduler.add(second)
    while scheduler.preemptions == 0:
        take(scheduler, scheduler.schedule())
    assert (second.state, second.read, second.blocks) == ("waiting", 0, [])
    written = list(second.tokens)
    while first.state != "done":
        take(scheduler, scheduler.schedule())
    batch = scheduler.schedule()
    assert [(item.sequence, item.start, item.count) for item in batch.scheduled] == [(second, 0, len(written))]
    assert second.tokens == written


def test_scheduler_forks_share_all_blocks_until_one_writes() -> None:
    manager = BlockManager(20, 4)
    scheduler = Scheduler(manager, max_sequences=4, max_batched_tokens=30)
    parent = sequence(10, 9)
    fork = sequence(10, 9, parent=parent)
    scheduler.add(parent)
    scheduler.add(fork)
    batch = scheduler.schedule()
    assert [item.sequence for item in batch.scheduled] == [parent]  # the prompt is read once
    scheduler.advance(batch)
    assert scheduler.fork(parent, fork)
    assert manager.used == 3
    parent.tokens.append(1)
    fork.tokens.append(2)
    shared = list(parent.blocks)
    batch = scheduler.schedule()
    assert len(batch.copies) == 1  # the second to write has the block to itself by then
    assert parent.blocks[:2] == fork.blocks[:2] == shared[:2]
    assert parent.blocks[2] != fork.blocks[2]
    assert manager.used == 4
    check(scheduler, ScheduledBatch(list(batch.scheduled)))


def test_scheduler_refuses_a_budget_that_leaves_no_room_for_prompts() -> None:
    with pytest.raises(ValueError, match="more than max_sequences"):
        Scheduler(BlockManager(4, 4), max_sequences=4, max_batched_tokens=4)
