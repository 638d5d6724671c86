"""Tokenizers in GGUF files: from the metadata to one of our tokenizer classes.

llama.cpp keeps a tokenizer as metadata of the model's file: ``tokenizer.ggml.model`` names the algorithm, ``tokens``,
``token_type``, ``scores`` and ``merges`` are its vocabulary, and single keys name the special tokens. Byte-level BPE
("gpt2") becomes the content of a ``tokenizer.json``, SentencePiece BPE ("llama") a `SentencePieceModel`; what comes
after is the same as for a Hugging Face folder. How llama.cpp understands the keys: src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from underhood.core.errors import UserError
from underhood.text.bpe import BytePairTokenizer
from underhood.text.gguf_pre import pre_tokenizer, split_steps
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.normalize import SPACE
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.sentencepiece_model import Kind, SentencePieceModel, VocabularyPiece
from underhood.text.settings import AddedToken, TokenizerSettings
from underhood.text.tokenizer_json import AddedEntry, byte_level_json, from_tokenizer_json

Metadata = Mapping[str, Any]
GGUFTokenizer = BytePairTokenizer | HuggingFaceTokenizer | SentencePieceTokenizer

MODEL_KEY = "tokenizer.ggml.model"
TEMPLATE_KEY = "tokenizer.chat_template"

END_NAMES = frozenset(
    [
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>", "<｜end▁of▁sentence｜>"),
    ]
)
"""Tokens that end an answer by their spelling alone: files rarely name more than one of theirs."""


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GGUFVocabulary:
    """The lists of the metadata, checked, without the unused tokens at the end that only fill the embedding."""

    tokens: list[str]
    types: list[TokenType]

    @property
    def special(self) -> list[int]:
        return [id for id, kind in enumerate(self.types) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]


def gguf_tokenizer(metadata: Metadata, where: str) -> tuple[GGUFTokenizer, TokenizerSettings]:
    """The tokenizer of a GGUF file and its settings: special tokens and chat templates.

    Args:
        metadata: the file's keys with plain Python values.
        where: how errors call the file.

    Raises:
        UserError: the algorithm or the split rule is not known (both are named), or the lists do not fit together.
    """
    kind = metadata.get(MODEL_KEY)
    if kind == "gpt2":
        return _byte_level(metadata, where)
    if kind == "llama":
        return _sentencepiece(metadata, where)
    raise UserError(
        f"{where} has a tokenizer that is not known here: {MODEL_KEY} = {kind!r}",
        expected="gpt2 (byte-level BPE) or llama (SentencePiece BPE)",
        fix="Use the model's Hugging Face folder",
    )


def _byte_level(metadata: Metadata, where: str) -> tuple[BytePairTokenizer | HuggingFaceTokenizer, TokenizerSettings]:
    rule = pre_tokenizer(metadata.get("tokenizer.ggml.pre"), where)
    vocabulary = _vocabulary(metadata, where)
    special = set(vocabulary.special)
    known = list(enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)))
    added = [
        AddedEntry(id, token, special=id in special)
        for id, (token, kind) in known
        if id in special or kind is TokenType.USER_DEFINED
    ]
    data = byte_level_json(
        vocab={token: id for id, (token, kind) in known if kind is not TokenType.UNUSED},
        merges=_strings(metadata, "tokenizer.ggml.merges", where),
        added=added,
        pre_tokenizer=split_steps(rule),
        ignore_merges=rule.ignore_merges,
    )
    settings = _settings(metadata, vocabulary, where, add_bos=rule.add_bos)
    if all(token.special for token in added):
        try:
            return BytePairTokenizer(from_tokenizer_json(data, where)), settings
        except UserError:
            pass  # a rule with several steps, bytes without a token, unused ids: the library takes them
    return HuggingFaceTokenizer(data, settings, where=where), settings


def _sentencepiece(metadata: Metadata, where: str) -> tuple[SentencePieceTokenizer, TokenizerSettings]:
    vocabulary = _vocabulary(metadata, where)
    scores = list(metadata.get("tokenizer.ggml.scores") or ())
    if len(scores) < len(vocabulary.tokens):
        got = f"{len(scores)} for {len(vocabulary.tokens)} tokens"
        raise UserError(f"{where}: tokenizer.ggml.scores is broken", expected="a score per token", got=got)
    pieces = [
        # llama.cpp writes the spaces of user-defined pieces as they are, SentencePiece as ▁.
        VocabularyPiece(
            token.replace(" ", SPACE) if kind is TokenType.USER_DEFINED else token, float(score), Kind(kind.value)
        )
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, scores, strict=False)
    ]
    if not any(piece.kind is Kind.UNKNOWN for piece in pieces):
        id = _special_id(metadata, "unknown", vocabulary, where)
        id = 0 if id is None else id
        pieces[id] = VocabularyPiece(pieces[id].text, pieces[id].score, Kind.UNKNOWN)
    texts = {piece.text for piece in pieces}
    model = SentencePieceModel(
        pieces=tuple(pieces),
        algorithm="bpe",
        byte_fallback=all(f"<0x{byte:02X}>" in texts for byte in range(256)),
        add_dummy_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
        remove_extra_whitespaces=bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)),
    )
    settings = _settings(metadata, vocabulary, where, add_bos=True)
    return SentencePieceTokenizer(model, settings), settings


def _settings(metadata: Metadata, vocabulary: GGUFVocabulary, where: str, *, add_bos: bool) -> TokenizerSettings:
    names: dict[str, str | None] = {}
    for key in ("bos", "eos", "unknown", "padding"):
        id = _special_id(metadata, key, vocabulary, where)
        names[key] = None if id is None or id not in vocabulary.special else vocabulary.tokens[id]
    named_ends = [_special_id(metadata, key, vocabulary, where) for key in ("eos", "eot", "eom")]
    ends = [id for id in named_ends if id is not None] + _ends_by_name(vocabulary)
    # Phi-3's own files say that white space behind its marks goes; GGUF has no place for it.
    is_phi3 = metadata.get("general.architecture") == "phi3" and metadata.get(MODEL_KEY) == "llama"
    keeps_space = ("<unk>", "<s>", "<|endoftext|>")
    stripping = [id for id in vocabulary.special if vocabulary.tokens[id] not in keeps_space] if is_phi3 else []
    return TokenizerSettings(
        bos=names["bos"],
        eos=names["eos"],
        pad=names["padding"],
        unk=names["unknown"],
        others=tuple(vocabulary.tokens[id] for id in vocabulary.special),
        added_tokens=tuple(AddedToken(id=id, content=vocabulary.tokens[id], rstrip=True) for id in stripping),
        end_ids=tuple(dict.fromkeys(ends)),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", add_bos)),
        legacy=True,  # llama.cpp puts a space behind each special token, as the older SentencePiece handling does
        chat_templates=_templates(metadata, where),
    )


def _ends_by_name(vocabulary: GGUFVocabulary) -> list[int]:
    """The special tokens whose spelling is known to end an answer."""
    ends = {vocabulary.tokens[id]: id for id in vocabulary.special if vocabulary.tokens[id] in END_NAMES}
    if ("<|call|>" in ends and "<|return|>" in ends) or ("<|calls|>" in ends and "<|flush|>" in ends):
        ends.pop("<|end|>", None)  # in these formats it ends a message of several, not the answer
    return list(ends.values())


def _templates(metadata: Metadata, where: str) -> dict[str, str]:
    prefix = TEMPLATE_KEY + "."
    sources = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    if metadata.get(TEMPLATE_KEY) is not None:
        sources["default"] = metadata[TEMPLATE_KEY]
    for name, source in sources.items():
        if not isinstance(source, str):
            got = type(source).__name__
            raise UserError(f"{where}: the chat template {name!r} is broken", expected="Jinja text", got=got)
    return {name: source for name, source in sources.items() if source}


def _vocabulary(metadata: Metadata, where: str) -> GGUFVocabulary:
    tokens = _strings(metadata, "tokenizer.ggml.tokens", where)
    numbers = metadata.get("tokenizer.ggml.token_type")
    numbers = [int(number) for number in numbers] if numbers is not None else [TokenType.NORMAL] * len(tokens)
    if len(numbers) < len(tokens):
        got = f"{len(numbers)} for {len(tokens)} tokens"
        raise UserError(f"{where}: tokenizer.ggml.token_type is broken", expected="a type per token", got=got)
    if twice := len(tokens) - len(set(tokens)):
        raise UserError(f"{where}: tokenizer.ggml.tokens has {twice} tokens twice")
    known = set(TokenType)
    types = [TokenType(number) if number in known else TokenType.NORMAL for number in numbers[: len(tokens)]]
    while types and types[-1] is TokenType.UNUSED:
        tokens.pop()
        types.pop()
    vocabulary = GGUFVocabulary(tokens, types)
    marks = [_special_id(metadata, key, vocabulary, where) for key in ("bos", "eos", "eot", "eom")]
    marks += [id for id, token in enumerate(tokens) if token in END_NAMES]
    for id in marks:
        if id is not None and types[id] in (TokenType.NORMAL, TokenType.USER_DEFINED):
            types[id] = TokenType.CONTROL  # older converters did not say so
    return vocabulary


def _special_id(metadata: Metadata, name: str, vocabulary: GGUFVocabulary, where: str) -> int | None:
    """The id under ``tokenizer.ggml.NAME_token_id``; None without one, and for ids outside, as llama.cpp has it."""
    id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if id is None:
        return None
    try:
        id = int(id)
    except (TypeError, ValueError):
        raise UserError(f"{where}: tokenizer.ggml.{name}_token_id is broken", expected="an id", got=repr(id)) from None
    return id if 0 <= id < len(vocabulary.tokens) else None


def _strings(metadata: Metadata, key: str, where: str) -> list[str]:
    values: Sequence[Any] | None = metadata.get(key)
    if values is None or isinstance(values, str) or not all(isinstance(value, str) for value in values):
        got = "nothing" if values is None else "something else"
        raise UserError(f"{where}: {key} is broken", expected="a list of strings", got=got)
    return list(values)
