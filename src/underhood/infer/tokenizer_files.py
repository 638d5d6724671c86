"""Tokenizer, chat template and special token ids of a model, or a placeholder that says what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.models.gguf_reader import copy_metadata, is_gguf, read_metadata
from underhood.text.chat import Template
from underhood.text.gguf_vocabulary import MODEL_KEY, Metadata, gguf_tokenizer
from underhood.text.load import (
    GPT2_FILES,
    SENTENCEPIECE_FILES,
    chat_template_of,
    load_chat_template,
    load_roles,
    load_tokenizer,
)
from underhood.text.settings import SpecialTokenIds

TOKENIZER_GGUF = "tokenizer.gguf"
"""The metadata of the GGUF file that a run's model came from: its tokenizer, chat template and special tokens."""

BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    TOKENIZER_GGUF,
    *SENTENCEPIECE_FILES,
    *(name for pair in GPT2_FILES for name in pair),
)
"""Files beside a model's weights that are copied as they are."""

NO_SPECIAL_TOKENS = SpecialTokenIds(bos_id=None, end_ids=(), pad_id=None, prefix_ids=())


def load_tokenizer_files(folder: Path, vocab_size: int) -> tuple[Tokenizer, Template | None, SpecialTokenIds]:
    """Tokenizer, chat template and special token ids; a folder without a tokenizer still gives a model."""
    if (file := folder / TOKENIZER_GGUF).exists():
        return load_gguf_tokenizer(read_metadata(file), vocab_size, where=str(file))
    try:
        tokenizer = load_tokenizer(folder)
    except UserError as error:
        # An error keeps the frames that it went through, and these the model: only its message is kept.
        copy = UserError(error.what, expected=error.expected, got=error.got, fix=error.fix)
        return MissingTokenizer(copy, vocab_size), None, NO_SPECIAL_TOKENS
    return tokenizer, load_chat_template(folder, tokenizer), load_roles(folder, tokenizer)


def copy_tokenizer_files(source: Path, out: Path) -> None:
    """Copies what a model's text is read and written by, from its folder or GGUF file, into another folder.

    Raises:
        UserError: the GGUF file is damaged.
    """
    if is_gguf(source):
        copy_metadata(source, out / TOKENIZER_GGUF)
        return
    for name in BESIDE:
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)


def load_gguf_tokenizer(
    metadata: Metadata, vocab_size: int, *, where: str = "the GGUF file"
) -> tuple[Tokenizer, Template | None, SpecialTokenIds]:
    """Tokenizer, chat template and special token ids of a GGUF file; a file without a tokenizer still gives a model.

    Args:
        metadata: the file's keys with plain Python values.
        vocab_size: rows of the model's embedding.
        where: how errors call the file.

    Raises:
        UserError: the file has a tokenizer that is not known here, is damaged, or has more tokens than the model rows.
    """
    if metadata.get(MODEL_KEY) in (None, "none", "no_vocab"):
        fix = "Take a file that holds one, or the model's Hugging Face folder"
        error = UserError(f"{where} holds no tokenizer", expected=f"the key {MODEL_KEY}", fix=fix)
        return MissingTokenizer(error, vocab_size), None, NO_SPECIAL_TOKENS
    tokenizer, settings = gguf_tokenizer(metadata, where)
    if tokenizer.vocab_size > vocab_size:
        got = f"{tokenizer.vocab_size:,} tokens and {vocab_size:,} rows"
        raise UserError(f"{where} has more tokens than its model has embeddings", expected="a row per token", got=got)
    return tokenizer, chat_template_of(settings, tokenizer, where), settings.roles(tokenizer)


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
        fix = self.error.fix or "Put its tokenizer files beside the weights, or give the model token ids"
        return UserError(f"this model has no tokenizer to read or write text with: {self.error.what}", fix=fix)
