"""Decoding by a table of the bytes of every id: what all tokenizers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from underhood.core.errors import UserError


class TokenTable(ABC):
    """Base class of the tokenizers. They fill `_bytes`, the bytes of every id, and say how text is encoded."""

    _bytes: list[bytes]

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; published vocabularies may have gaps."""
        return len(self._bytes)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without anything added; text that spells a special token stays text."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The exact bytes of the ids, joined: what a stream needs. Special tokens are spelled out.

        Raises:
            UserError: an id is not in the vocabulary, as happens when model and tokenizer do not belong together.
        """
        if len(ids) and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(id for id in ids if not 0 <= id < self.vocab_size)
            fix = "Use the tokenizer that the model was trained with"
            raise UserError(f"id {wrong} is not in the tokenizer's vocabulary of {self.vocab_size}", fix=fix)
        return b"".join([self._bytes[id] for id in ids])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens spelled out; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def pieces(self, text: str) -> list[tuple[int, bytes]]:
        """Each token of `text` as its id and its exact bytes, for showing how a text is cut."""
        return [(id, self._bytes[id]) for id in self.encode(text)]
