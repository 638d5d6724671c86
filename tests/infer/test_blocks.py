"""The pool of blocks against a plain model of it: nothing leaks, nothing is freed twice, nothing false is found."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from underhood.infer import blocks as blocks_module
from underhood.infer.blocks import FREE, HELD, KEPT, BlockPool, Link, root

SIZE, TOTAL = 2, 12


@dataclass(eq=False)
class Text:
    """What a text holds, and what its blocks must hold: tokens by block."""

    salt: str
    tokens: list[int]
    blocks: list[int]
    link: Link | None
    recorded: int
    written: list[tuple[int, ...]] = field(default_factory=list)


class PoolMachine(RuleBasedStateMachine):
    """Random texts begin, grow, split in two and end at any time; `memory` is what really stands in each block."""

    texts = Bundle("texts")

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(TOTAL, SIZE)
        self.alive: list[Text] = []
        self.memory: dict[int, tuple[str, tuple[int, ...]]] = {}

    @rule(
        target=texts,
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9),
        salt=st.sampled_from("ab"),
        ahead=st.integers(0, 3),
    )
    def begin(self, tokens: list[int], salt: str, ahead: int) -> Text:
        found, link = self.pool.match(tokens, salt)
        for index, block in enumerate(found):  # what is found is what was written there, after the same beginning
            assert self.memory[block] == (salt, tuple(tokens[: (index + 1) * SIZE]))
        assert len(found) * SIZE < len(tokens)
        text = Text(salt, tokens, found, link, len(found))
        taken = self.pool.take(-(-len(tokens) // SIZE) - len(found), after=found[-1] if found else None, ahead=ahead)
        if taken is None:
            self.pool.release(found)
            text.blocks, text.tokens = [], []
            return text
        text.blocks = found + taken
        self.alive.append(text)
        self._write(text, len(found))
        return text

    @rule(text=texts, token=st.integers(0, 1), ahead=st.integers(0, 3))
    def grow(self, text: Text, token: int, ahead: int) -> None:
        if text not in self.alive:
            return
        place = len(text.tokens) // SIZE
        before, available = list(text.blocks), self.pool.available
        if place == len(text.blocks):
            taken = self.pool.take(1, after=text.blocks[-1], ahead=ahead)
        elif self.pool.references(text.blocks[place]) > 1:
            taken = self.pool.take(1, ahead=ahead)
            if taken is not None:
                self.pool.release([text.blocks.pop()])
        else:
            taken = []
        if taken is None:
            assert available == 0
            assert text.blocks == before
            return
        text.blocks += taken
        text.tokens = [*text.tokens, token]
        self._write(text, place)

    @rule(target=texts, text=texts)
    def split(self, text: Text) -> Text:
        other = Text(text.salt, list(text.tokens), list(text.blocks), text.link, text.recorded)
        if text in self.alive:
            self.pool.share(text.blocks)
            self.alive.append(other)
        return other

    @rule(text=consumes(texts))
    def end(self, text: Text) -> None:
        if text in self.alive:
            self.alive.remove(text)
            self.pool.release(text.blocks)

    def _write(self, text: Text, place: int) -> None:
        """Fills the blocks from `place` on, and puts the full ones on file."""
        for index in range(place, len(text.blocks)):
            block = text.blocks[index]
            assert self.pool.references(block) == 1, "only a text's own block is ever written"
            self.memory[block] = (text.salt, tuple(text.tokens[: (index + 1) * SIZE]))
        while text.link is not None and (text.recorded + 1) * SIZE <= len(text.tokens):
            start = text.recorded * SIZE
            text.link = self.pool.record(text.link, text.tokens[start : start + SIZE], text.blocks[text.recorded])
            text.recorded += 1

    @invariant()
    def every_reference_is_a_text_that_holds_the_block(self) -> None:
        held = [block for text in self.alive for block in text.blocks]
        for block in range(TOTAL):
            assert self.pool.references(block) == held.count(block)
        assert self.pool.used == len(set(held))
        assert self.pool.available == TOTAL - len(set(held))

    @invariant()
    def blocks_hold_what_their_texts_wrote(self) -> None:
        for text in self.alive:
            for index, block in enumerate(text.blocks):
                salt, tokens = self.memory[block]
                whole = tuple(text.tokens[: (index + 1) * SIZE])
                assert (salt, tokens[: len(whole)]) == (text.salt, whole)

    @invariant()
    def states_agree(self) -> None:
        pool = self.pool
        idle = list(pool._idle)
        assert pool.cached == len(idle)
        for block in range(TOTAL):
            used = pool.references(block) > 0
            assert (pool._state[block] == HELD) == (used or block in idle)
            assert not (used and block in idle)
            if pool._state[block] == KEPT:  # for the text that holds the block before it
                assert block > 0
                assert pool._state[block - 1] == KEPT or pool.references(block - 1) > 0
        assert pool._state.count(FREE) + pool._state.count(KEPT) + len(idle) == pool.available
        for key, block in pool._on_file.items():
            content = pool._content[block]
            assert content is not None
            assert content.link.key == key

    def teardown(self) -> None:
        for text in self.alive:
            self.pool.release(text.blocks)
        assert self.pool.used == 0
        everything = self.pool.take(TOTAL)
        assert everything is not None
        assert sorted(everything) == list(range(TOTAL))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_pool_gives_one_piece_of_memory_to_texts_that_grow_side_by_side() -> None:
    pool = BlockPool(60, 4)
    texts = [pool.take(2, ahead=8) for _ in range(4)]
    for _ in range(8):
        for text in texts:
            assert text is not None
            grown = pool.take(1, after=text[-1], ahead=0)
            assert grown is not None
            text += grown
    for text in texts:
        assert text is not None
        assert text == list(range(text[0], text[0] + 10))


def test_pool_that_is_full_of_old_contents_still_gives_one_piece() -> None:
    pool, tokens = BlockPool(32, 2), list(range(1000))
    for start in range(8):  # eight texts of four blocks come and go
        blocks = pool.take(4)
        assert blocks is not None
        link: Link | None = root("")
        for index, block in enumerate(blocks):
            assert link is not None
            link = pool.record(link, tokens[8 * start + 2 * index :][:2], block)
        pool.release(blocks)
    assert pool.cached == 32
    blocks = pool.take(1, ahead=5)
    assert blocks is not None
    for _ in range(5):
        more = pool.take(1, after=blocks[-1])
        assert more is not None
        blocks += more
    assert blocks == list(range(blocks[0], blocks[0] + 6))
    assert pool.cached >= 32 - 12


def test_pool_forgets_what_was_idle_longest_and_ends_before_beginnings() -> None:
    pool = BlockPool(4, 2)
    for salt in "ab":
        blocks = pool.take(2)
        assert blocks is not None
        link = pool.record(root(salt), [1, 2], blocks[0])
        assert link is not None
        pool.record(link, [3, 4], blocks[1])
        pool.release(blocks)
    found, _ = pool.match([1, 2, 9], "a")  # "a" is used again, so "b" is the older one now
    pool.release(found)
    assert pool.take(1) is not None
    assert len(pool.match([1, 2, 3, 4, 5], "a")[0]) == 1  # its end had not been used since
    assert len(pool.match([1, 2, 3, 4, 5], "b")[0]) == 2


@pytest.mark.parametrize("verified", [True, False])
def test_pool_verifies_tokens_where_keys_collide(monkeypatch: pytest.MonkeyPatch, verified: bool) -> None:
    # All keys alike: only the comparison of tokens and parents tells contents apart.
    monkeypatch.setattr(blocks_module, "hash", lambda _: 7, raising=False)
    pool = BlockPool(4, 2)
    blocks = pool.take(1)
    assert blocks is not None
    assert pool.record(root("salt"), [1, 2], blocks[0]) is not None
    if verified:
        assert pool.match([8, 9, 1], "salt")[0] == []
        assert pool.match([1, 2, 1], "pepper")[0] == []
        assert pool.match([1, 2, 1], "salt")[0] == blocks
    else:  # with what is compared taken away, another text's keys would be found
        content = pool._content[blocks[0]]
        assert content is not None
        monkeypatch.setattr(pool, "_content", [content._replace(tokens=(8, 9))] * 4)
        assert pool.match([8, 9, 1], "salt")[0] == blocks


def test_pool_refuses_to_take_back_what_nobody_holds() -> None:
    pool = BlockPool(3, 2)
    blocks = pool.take(2)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(AssertionError, match="more often than taken"):
        pool.release(blocks[:1])
