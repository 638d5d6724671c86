"""The scheduler alone, without a model: random arrivals, and everyone gets their turn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.infer.blocks import BlockPool
from underhood.infer.scheduler import Guesser, Plan, Scheduler, Stream


def stream(prompt: int, new: int, rng: random.Random | None = None, leader: Stream | None = None) -> Stream:
    # Half of them begin alike, as far as they go.
    fixed = 4 * rng.randrange(4) if rng else 0
    tokens = [rng.randrange(3) if rng and place >= fixed else place for place in range(prompt)]
    return Stream(tokens=tokens, prompt=prompt, limit=prompt + new, leader=leader)


def take(scheduler: Scheduler, plan: Plan) -> None:
    """What the engine does with a plan: every text that was read to its end gets one token more, or is done.

    A guess is right as long as it goes on as all these texts do.
    """
    scheduler.advance(plan)
    for turn in plan.turns:
        for guessed in (*turn.guess, None):
            if turn.stream.unread or turn.stream.state != "running":
                break
            turn.stream.tokens.append(len(turn.stream.tokens) % 3)
            if len(turn.stream.tokens) >= turn.stream.limit:
                scheduler.end(turn.stream)
            elif turn.stream.tokens[-1] == guessed:
                scheduler.count_read(turn.stream, 1)


def guess(rng: random.Random) -> Guesser:
    """A draft that is often right for a while."""

    def guesser(stream: Stream, most: int) -> list[int]:
        count = rng.randint(0, min(most, 6))
        right = [(len(stream.tokens) + place) % 3 for place in range(count)]
        return right if rng.random() < 0.5 else [*right[: count // 2], *[9] * (count - count // 2)]

    return guesser


def check(scheduler: Scheduler, plan: Plan) -> None:
    """What must hold of every plan."""
    pool = scheduler.pool
    assert sum(turn.count + len(turn.guess) for turn in plan.turns) <= scheduler.tokens_per_step
    assert len(scheduler.running) <= scheduler.max_running
    assert len({id(turn.stream) for turn in plan.turns}) == len(plan.turns)
    counts = [turn.count for turn in plan.turns]
    decodes = [turn for turn in plan.turns if turn.stream.tokens[turn.stream.prompt :] and turn.count == 1]
    assert [turn.count for turn in plan.turns[: len(decodes)]] == counts[: len(decodes)]
    for turn in plan.turns:
        assert turn.stream.state == "running"
        end = turn.start + turn.count + len(turn.guess)
        first, last = (place // pool.size - turn.stream.dropped for place in (turn.start, end - 1))
        assert last < len(turn.stream.blocks)
        assert end < turn.stream.limit
        if scheduler.window is not None:
            unseen = max(0, turn.start - scheduler.window + 1) // pool.size
            assert turn.stream.dropped == unseen, "what is seen stays, and nothing else"
        for block in turn.stream.blocks[first : last + 1]:
            assert pool.references(block) == 1, "what is written belongs to one text"
        ranges = [block for first, count in turn.stream.runs for block in range(first, first + count)]
        assert ranges == turn.stream.blocks


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    total=st.integers(8, 40),
    max_running=st.integers(1, 6),
    extra=st.integers(1, 20),
    share=st.booleans(),
    guesses=st.booleans(),
    window=st.one_of(st.none(), st.integers(1, 30)),
)
def test_scheduler_starves_nobody_under_random_arrivals_and_cancels(
    seed: int, total: int, max_running: int, extra: int, share: bool, guesses: bool, window: int | None
) -> None:
    rng = random.Random(seed)
    pool = BlockPool(total, 4)
    budget = max_running + extra
    scheduler = Scheduler(pool, max_running=max_running, tokens_per_step=budget, share=share, window=window)
    guesser = guess(rng) if guesses else None
    everyone: list[Stream] = []
    oldest: tuple[Stream | None, int] = (None, 0)
    for _ in range(150):
        for _ in range(rng.choice([0, 0, 0, 1, 1, 4])):
            length = rng.randint(1, 2 * total)
            new = stream(length, rng.randint(1, 4 * total - length), rng)
            scheduler.add(new)
            everyone.append(new)
        if everyone and rng.random() < 0.1:
            scheduler.end(rng.choice(everyone))
        plan = scheduler.plan(guesser)
        check(scheduler, plan)
        take(scheduler, plan)
        # Whoever is the oldest needs at most a step per token, once those are done who were reading the same beginning:
        # nobody else goes before it, nothing takes its memory.
        first = min(scheduler.streams(), key=lambda one: one.number, default=None)
        oldest = (first, oldest[1] + 1 if first is oldest[0] else 0)
        assert first is None or oldest[1] <= 2 * first.limit
    for _ in range(sum(one.limit for one in scheduler.streams())):
        take(scheduler, scheduler.plan(guesser))
    assert not scheduler.streams()
    assert all(one.state == "done" for one in everyone)
    assert pool.used == 0


def test_scheduler_puts_decodes_first_and_prompts_in_order_of_arrival() -> None:
    scheduler = Scheduler(BlockPool(100, 4), max_running=4, tokens_per_step=10)
    writing, long, short = stream(3, 50), stream(30, 5), stream(4, 5)
    scheduler.add(writing)
    take(scheduler, scheduler.plan())
    scheduler.add(long)
    scheduler.add(short)
    seen = []
    for _ in range(5):
        plan = scheduler.plan()
        seen.append([(turn.stream, turn.count) for turn in plan.turns])
        take(scheduler, plan)
    assert seen[:3] == [[(writing, 1), (long, 9)]] * 3
    assert seen[3] == [(writing, 1), (long, 3), (short, 4)]
    assert seen[4] == [(writing, 1), (long, 1), (short, 1)]


def test_scheduler_lets_one_read_what_many_begin_with() -> None:
    scheduler = Scheduler(BlockPool(100, 4), max_running=8, tokens_per_step=20)
    texts = [Stream(tokens=[*range(40), 50 + index], prompt=41, limit=45) for index in range(3)]
    other = stream(4, 5)
    other.tokens = [9, 9, 9, 9]
    for text in (*texts, other):
        scheduler.add(text)
    counts = []
    while any(text.state == "waiting" or text.unread > 1 for text in texts):
        plan = scheduler.plan()
        counts.append({turn.stream.number: turn.count for turn in plan.turns})
        take(scheduler, plan)
    # 41 tokens of the first take three steps; of the second and third only one is left. The last is not held up.
    assert counts == [{0: 20}, {0: 20}, {0: 1, 1: 1, 2: 1, 3: 4}]
    assert [text.cached for text in texts] == [0, 40, 40]
    # Without sharing, everyone reads everything.
    alone = Scheduler(BlockPool(100, 4), max_running=8, tokens_per_step=200, share=False)
    for _ in range(3):
        alone.add(Stream(tokens=list(range(41)), prompt=41, limit=45))
    assert [turn.count for turn in alone.plan().turns] == [41, 41, 41]


def test_scheduler_puts_the_last_comer_back_when_memory_runs_out_and_reads_it_again() -> None:
    scheduler = Scheduler(BlockPool(6, 4), max_running=2, tokens_per_step=30, share=False)
    first, second = stream(8, 16), stream(8, 16)
    scheduler.add(first)
    scheduler.add(second)
    while scheduler.preemptions == 0:
        take(scheduler, scheduler.plan())
    assert (second.state, second.read, second.blocks) == ("waiting", 0, [])
    written = list(second.tokens)
    while first.state != "done":
        take(scheduler, scheduler.plan())
    plan = scheduler.plan()
    assert [(turn.stream, turn.start, turn.count) for turn in plan.turns] == [(second, 0, len(written))]
    assert second.tokens == written


def test_scheduler_forks_share_all_blocks_until_one_writes() -> None:
    pool = BlockPool(20, 4)
    scheduler = Scheduler(pool, max_running=4, tokens_per_step=30)
    leader = stream(10, 9)
    follower = stream(10, 9, leader=leader)
    scheduler.add(leader)
    scheduler.add(follower)
    plan = scheduler.plan()
    assert [turn.stream for turn in plan.turns] == [leader]  # the prompt is read once
    scheduler.advance(plan)
    assert scheduler.fork(leader, follower)
    assert pool.used == 3
    leader.tokens.append(1)
    follower.tokens.append(2)
    shared = list(leader.blocks)
    plan = scheduler.plan()
    assert len(plan.copies) == 1  # the second to write has the block to itself by then
    assert leader.blocks[:2] == follower.blocks[:2] == shared[:2]
    assert leader.blocks[2] != follower.blocks[2]
    assert pool.used == 4
    check(scheduler, Plan(list(plan.turns)))


def test_scheduler_refuses_a_budget_that_leaves_no_room_for_prompts() -> None:
    with pytest.raises(ValueError, match="more than max_running"):
        Scheduler(BlockPool(4, 4), max_running=4, tokens_per_step=4)
