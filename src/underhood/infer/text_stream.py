"""Tokens as text while they come: no half character is ever shown."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from underhood.core.protocols import Tokenizer


class TextDecoder:
    """Turns ids into text one at a time.

    A token may end in the middle of a character's UTF-8 bytes; such bytes wait for the tokens that complete them.
    All that is pushed, with what `finish` gives, spells exactly what `Tokenizer.decode` gives for the same ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The characters that this token completes; often its own, sometimes none."""
        return self._bytes.decode(self._tokenizer.decode_bytes([id]))

    def finish(self) -> str:
        """What is left: U+FFFD for a character that was never completed."""
        return self._bytes.decode(b"", final=True)


def decode_stream(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text of `ids` in pieces, each as soon as it is certain; pieces are never empty."""
    decoder = TextDecoder(tokenizer)
    for id in ids:
        if text := decoder.push(id):
            yield text
    if text := decoder.finish():
        yield text
