"""Tokenizer, chat template and special token ids of a model's folder, or a placeholder that says what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.chat import Template
from underhood.text.load import load_chat_template, load_roles, load_tokenizer
from underhood.text.settings import SpecialTokenIds


def load_tokenizer_files(folder: Path, vocab_size: int) -> tuple[Tokenizer, Template | None, SpecialTokenIds]:
    """Tokenizer, chat template and special token ids; a folder without a tokenizer still gives a model."""
    try:
        tokenizer = load_tokenizer(folder)
    except UserError as error:
        # An error keeps the frames that it went through, and these the model: only its message is kept.
        copy = UserError(error.what, expected=error.expected, got=error.got, fix=error.fix)
        unknown = SpecialTokenIds(bos_id=None, end_ids=(), pad_id=None, prefix_ids=())
        return MissingTokenizer(copy, vocab_size), None, unknown
    return tokenizer, load_chat_template(folder, tokenizer), load_roles(folder, tokenizer)


@dataclass(frozen=True)
class MissingTokenizer:
    """Placeholder for a tokenizer that cannot be read: the model works on ids, and text explains what is missing."""

    error: UserError
    vocab_size: int
    special: Mapping[str, int] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        raise self._explained()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        raise self._explained()

    def decode(self, ids: Sequence[int]) -> str:
        raise self._explained()

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        raise self._explained()

    def _explained(self) -> UserError:
        fix = "Put its tokenizer files beside the weights, or give the model token ids"
        return UserError(f"this model has no tokenizer to read or write text with: {self.error.what}", fix=fix)
