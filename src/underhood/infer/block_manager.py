"""Block manager of the paged KV cache: allocation, reference counts and prefix lookup, without tensors.

Keys and values are kept in blocks of a few tokens each (Kwon et al. 2023, PagedAttention), so that texts of any length
share one memory and a block can belong to several texts that begin alike. Unlike there, a text's blocks are laid out
side by side wherever they can be: attention then reads them as one piece of memory, without gathering.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

FREE, KEPT, HELD = 0, 1, 2
"""A block nobody has; one kept free for the text that holds the block before it; one with something in it."""


class Link(NamedTuple):
    """A point in a chain of full blocks: all the tokens up to there, in two numbers.

    Attributes:
        key: hash of everything up to there. Different texts may share a key, so it is only where to look.
        id: number of the block's content, which no other content ever had; for the root of a chain its cache_salt.
    """

    key: int
    id: int | str


class Content(NamedTuple):
    """What a full block holds. Equal tokens after an equal parent: equal keys and values."""

    link: Link
    parent: int | str
    tokens: tuple[int, ...]


def root(cache_salt: str) -> Link:
    """Where a text's chain begins. Texts of different salts never share."""
    return Link(hash(("root", cache_salt)), cache_salt)


class BlockManager:
    """Blocks 0 … `total` − 1 of `size` tokens each: taken, shared, put on file, given back.

    A block that is given back with its content on file stays readable until its room is needed; the one that has been
    idle longest goes first, and of one text the end before the beginning.
    """

    def __init__(self, total: int, size: int):
        if total < 1 or size < 1:
            raise ValueError(f"total and size must be at least 1, got {total} and {size}")
        self.total, self.size = total, size
        self.used = 0
        self._state = bytearray(total)
        self._references = [0] * total
        self._content: list[Content | None] = [None] * total
        self._on_file: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._contents = 0

    @property
    def available(self) -> int:
        """How many blocks `take` could give."""
        return self.total - self.used

    @property
    def cached(self) -> int:
        """Blocks that nobody holds but that are still on file."""
        return len(self._idle)

    def references(self, block: int) -> int:
        return self._references[block]

    def take(self, count: int, *, after: int | None = None, ahead: int = 0) -> list[int] | None:
        """`count` blocks, or None (and nothing changes) if there are not so many.

        Args:
            after: the last block of the text; the new ones follow it directly if they can.
            ahead: how many more the text is likely to want; they are kept for it as long as nobody else needs them.
        """
        if count > self.available:
            return None
        taken: list[int] = []
        if after is not None:
            last = after
            while len(taken) < count and last + 1 < self.total and self._state[last + 1] != HELD:
                last += 1
                self._hold(last)
                taken.append(last)
        while len(taken) < count:
            taken += self._take_run(count - len(taken), ahead)
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """Takes one more reference to each of the blocks."""
        for block in blocks:
            assert self._state[block] == HELD, "only what has content can be shared"
            if self._references[block] == 0:
                del self._idle[block]
                self.used += 1
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Gives one reference back per block of a text, in the text's order."""
        for block in reversed(blocks):
            assert self._references[block] > 0, "given back more often than taken"
            self._references[block] -= 1
            if self._references[block]:
                continue
            self.used -= 1
            self._give_up_kept(block)
            if self._content[block] is None:
                self._state[block] = FREE
            else:
                self._idle[block] = None

    def record(self, parent: Link, tokens: Sequence[int], block: int) -> Link | None:
        """Puts a full block on file; the link for the block after it.

        If the same content is on file already, that one's link goes on; None when other content has the same key (the
        text then simply stays out of the file from there on).
        """
        chunk = tuple(tokens)
        assert len(chunk) == self.size, "only full blocks"
        key = hash((parent.key, chunk))
        known = self._on_file.get(key)
        if known is not None:
            content = self._content[known]
            return (
                content.link if content is not None and (content.parent, content.tokens) == (parent.id, chunk) else None
            )
        self._contents += 1
        link = Link(key, self._contents)
        self._content[block] = Content(link, parent.id, chunk)
        self._on_file[key] = block
        return link

    def match(self, tokens: Sequence[int], cache_salt: str) -> tuple[list[int], Link]:
        """The longest beginning of `tokens` that is on file: its blocks (with a reference each) and its link.

        At least the last token is left over, for its scores have to be worked out. Keys say where to look; tokens and
        the chain of contents back to the cache_salt decide.
        """
        link, matched = root(cache_salt), []
        for start in range(0, len(tokens) - self.size, self.size):
            chunk = tuple(tokens[start : start + self.size])
            block = self._on_file.get(hash((link.key, chunk)))
            content = None if block is None else self._content[block]
            if block is None or content is None or (content.parent, content.tokens) != (link.id, chunk):
                break
            matched.append(block)
            link = content.link
        self.share(matched)
        return matched, link

    def reset_prefix_cache(self) -> None:
        """Forgets what all blocks hold, such as keys and values of weights that have changed; held blocks stay held."""
        self._on_file.clear()
        self._content = [None] * self.total
        for block in self._idle:
            self._state[block] = FREE
        self._idle.clear()

    def _hold(self, block: int) -> None:
        self._state[block] = HELD
        self._references[block] = 1
        self.used += 1

    def _take_run(self, count: int, ahead: int) -> list[int]:
        """From 1 to `count` neighbours, with `ahead` kept after them if that many are free."""
        start, length = -1, 0
        for length in (count + ahead, count):
            start = self._state.find(bytes(length))
            # What has been idle longest makes room: enough of it, and if it was scattered as much again.
            for more in (length - self._state.count(FREE), length):
                if start < 0:
                    self._evict(more)
                    start = self._state.find(bytes(length))
            if start >= 0:
                break
        if start < 0:  # no stretch is long enough: whichever is free, and last what is kept for someone
            kind = FREE if FREE in self._state else KEPT
            start, length = self._state.find(kind), 1
            while length < count and start + length < self.total and self._state[start + length] == kind:
                length += 1
        run = list(range(start, start + min(count, length)))
        for block in run:
            self._hold(block)
        for block in range(start + len(run), start + length):
            self._state[block] = KEPT
        return run

    def _evict(self, count: int) -> None:
        """Forgets up to `count` of the contents that have been idle longest."""
        for _ in range(min(count, len(self._idle))):
            block, _ = self._idle.popitem(last=False)
            content = self._content[block]
            assert content is not None, "an idle block is on file"
            del self._on_file[content.link.key]
            self._content[block] = None
            self._state[block] = FREE

    def _give_up_kept(self, block: int) -> None:
        block += 1
        while block < self.total and self._state[block] == KEPT:
            self._state[block] = FREE
            block += 1
