"""The manager of blocks against a plain model of it: nothing leaks, nothing is freed twice, nothing false is found."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from underhood.infer import block_manager as blocks_module
from underhood.infer.block_manager import FREE, HELD, KEPT, BlockManager, Link, root

SIZE, TOTAL = 2, 12


@dataclass(eq=False)
class Text:
    """What a text holds, and what its blocks must hold: tokens by block."""

    cache_salt: str
    tokens: list[int]
    blocks: list[int]
    link: Link | None
    recorded: int
    written: list[tuple[int, ...]] = field(default_factory=list)


class PoolMachine(RuleBasedStateMachine):
    """Random texts begin, grow, split in two and end at any time; `memory` is what each block really holds."""

    texts = Bundle("texts")

    def __init__(self):
        super().__init__()
        self.manager = BlockManager(TOTAL, SIZE)
        self.alive: list[Text] = []
        self.memory: dict[int, tuple[str, tuple[int, ...]]] = {}

    @rule(
        target=texts,
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9),
        cache_salt=st.sampled_from("ab"),
        ahead=st.integers(0, 3),
    )
    def begin(self, tokens: list[int], cache_salt: str, ahead: int) -> Text:
        actual, link = self.manager.match(tokens, cache_salt)
        for index, block in enumerate(actual):  # a match holds what was written there, after the same beginning
            assert self.memory[block] == (cache_salt, tuple(tokens[: (index + 1) * SIZE]))
        assert len(actual) * SIZE < len(tokens)
        text = Text(cache_salt, tokens, actual, link, len(actual))
        taken = self.manager.take(
            -(-len(tokens) // SIZE) - len(actual), after=actual[-1] if actual else None, ahead=ahead
        )
        if taken is None:
            self.manager.release(actual)
            text.blocks, text.tokens = [], []
            return text
        text.blocks = actual + taken
        self.alive.append(text)
        self._write(text, len(actual))
        return text

    @rule(text=texts, token=st.integers(0, 1), ahead=st.integers(0, 3))
    def grow(self, text: Text, token: int, ahead: int) -> None:
        if text not in self.alive:
            return
        location = len(text.tokens) // SIZE
        before, available = list(text.blocks), self.manager.available
        if location == len(text.blocks):
            taken = self.manager.take(1, after=text.blocks[-1], ahead=ahead)
        elif self.manager.references(text.blocks[location]) > 1:
            taken = self.manager.take(1, ahead=ahead)
            if taken is not None:
                self.manager.release([text.blocks.pop()])
        else:
            taken = []
        if taken is None:
            assert available == 0
            assert text.blocks == before
            return
        text.blocks += taken
        text.tokens = [*text.tokens, token]
        self._write(text, location)

    @rule(target=texts, text=texts)
    def split(self, text: Text) -> Text:
        other = Text(text.cache_salt, list(text.tokens), list(text.blocks), text.link, text.recorded)
        if text in self.alive:
            self.manager.share(text.blocks)
            self.alive.append(other)
        return other

    @rule(text=consumes(texts))
    def end(self, text: Text) -> None:
        if text in self.alive:
            self.alive.remove(text)
            self.manager.release(text.blocks)

    def _write(self, text: Text, first: int) -> None:
        """Fills the blocks from `place` on, and puts the full ones on file."""
        for index in range(first, len(text.blocks)):
            block = text.blocks[index]
            assert self.manager.references(block) == 1, "only a text's own block is ever written"
            self.memory[block] = (text.cache_salt, tuple(text.tokens[: (index + 1) * SIZE]))
        while text.link is not None and (text.recorded + 1) * SIZE <= len(text.tokens):
            start = text.recorded * SIZE
            text.link = self.manager.record(text.link, text.tokens[start : start + SIZE], text.blocks[text.recorded])
            text.recorded += 1

    @invariant()
    def every_reference_is_a_text_that_holds_the_block(self) -> None:
        held = [block for text in self.alive for block in text.blocks]
        for block in range(TOTAL):
            assert self.manager.references(block) == held.count(block)
        assert self.manager.used == len(set(held))
        assert self.manager.available == TOTAL - len(set(held))

    @invariant()
    def blocks_hold_what_their_texts_wrote(self) -> None:
        for text in self.alive:
            for index, block in enumerate(text.blocks):
                cache_salt, tokens = self.memory[block]
                whole = tuple(text.tokens[: (index + 1) * SIZE])
                assert (cache_salt, tokens[: len(whole)]) == (text.cache_salt, whole)

    @invariant()
    def states_agree(self) -> None:
        manager = self.manager
        idle = list(manager._idle)
        assert manager.cached == len(idle)
        for block in range(TOTAL):
            used = manager.references(block) > 0
            assert (manager._state[block] == HELD) == (used or block in idle)
            assert not (used and block in idle)
            if manager._state[block] == KEPT:  # for the text that holds the block before it
                assert block > 0
                assert manager._state[block - 1] == KEPT or manager.references(block - 1) > 0
        assert manager._state.count(FREE) + manager._state.count(KEPT) + len(idle) == manager.available
        for key, block in manager._on_file.items():
            content = manager._content[block]
            assert content is not None
            assert content.link.key == key

    def teardown(self) -> None:
        for text in self.alive:
            self.manager.release(text.blocks)
        assert self.manager.used == 0
        everything = self.manager.take(TOTAL)
        assert everything is not None
        assert sorted(everything) == list(range(TOTAL))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_pool_gives_one_piece_of_memory_to_texts_that_grow_side_by_side() -> None:
    manager = BlockManager(60, 4)
    texts = [manager.take(2, ahead=8) for _ in range(4)]
    for _ in range(8):
        for text in texts:
            assert text is not None
            grown = manager.take(1, after=text[-1], ahead=0)
            assert grown is not None
            text += grown
    for text in texts:
        assert text is not None
        assert text == list(range(text[0], text[0] + 10))


def test_pool_that_is_full_of_old_contents_still_gives_one_piece() -> None:
    manager, tokens = BlockManager(32, 2), list(range(1000))
    for start in range(8):  # eight texts of four blocks come and go
        blocks = manager.take(4)
        assert blocks is not None
        link: Link | None = root("")
        for index, block in enumerate(blocks):
            assert link is not None
            link = manager.record(link, tokens[8 * start + 2 * index :][:2], block)
        manager.release(blocks)
    assert manager.cached == 32
    blocks = manager.take(1, ahead=5)
    assert blocks is not None
    for _ in range(5):
        more = manager.take(1, after=blocks[-1])
        assert more is not None
        blocks += more
    assert blocks == list(range(blocks[0], blocks[0] + 6))
    assert manager.cached >= 32 - 12


def test_pool_forgets_what_was_idle_longest_and_ends_before_beginnings() -> None:
    manager = BlockManager(4, 2)
    for cache_salt in "ab":
        blocks = manager.take(2)
        assert blocks is not None
        link = manager.record(root(cache_salt), [1, 2], blocks[0])
        assert link is not None
        manager.record(link, [3, 4], blocks[1])
        manager.release(blocks)
    actual, _ = manager.match([1, 2, 9], "a")  # "a" is used again, so "b" is the older one now
    manager.release(actual)
    assert manager.take(1) is not None
    assert len(manager.match([1, 2, 3, 4, 5], "a")[0]) == 1  # its end had not been used since
    assert len(manager.match([1, 2, 3, 4, 5], "b")[0]) == 2


@pytest.mark.parametrize("verified", [True, False])
def test_pool_verifies_tokens_where_keys_collide(monkeypatch: pytest.MonkeyPatch, verified: bool) -> None:
    # All keys alike: only the comparison of tokens and parents tells contents apart.
    monkeypatch.setattr(blocks_module, "hash", lambda _: 7, raising=False)
    manager = BlockManager(4, 2)
    blocks = manager.take(1)
    assert blocks is not None
    assert manager.record(root("cache_salt"), [1, 2], blocks[0]) is not None
    if verified:
        assert manager.match([8, 9, 1], "cache_salt")[0] == []
        assert manager.match([1, 2, 1], "pepper")[0] == []
        assert manager.match([1, 2, 1], "cache_salt")[0] == blocks
    else:  # with what is compared taken away, another text's keys would be found
        content = manager._content[blocks[0]]
        assert content is not None
        monkeypatch.setattr(manager, "_content", [content._replace(tokens=(8, 9))] * 4)
        assert manager.match([8, 9, 1], "cache_salt")[0] == blocks


def test_pool_refuses_to_take_back_what_nobody_holds() -> None:
    manager = BlockManager(3, 2)
    blocks = manager.take(2)
    assert blocks is not None
    manager.release(blocks)
    with pytest.raises(AssertionError, match="more often than taken"):
        manager.release(blocks[:1])
