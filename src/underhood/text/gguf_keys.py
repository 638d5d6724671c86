"""Tokenizers as GGUF metadata: the way back from `gguf_vocabulary`, for llama.cpp to open what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.bpe import BytePairTokenizer
from underhood.text.gguf_pre import PRE_TOKENIZERS, pre_of
from underhood.text.gguf_vocabulary import TokenType
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.normalize import SPACE
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.vocabulary import spell

Json = dict[str, Any]

PRE = {"qwen2": "qwen2", "llama3": "llama-bpe", "gpt2": "gpt-2"}
"""Our split patterns by the names that llama.cpp has for the same regular expressions."""


def gguf_keys(tokenizer: Tokenizer, rows: int) -> Json:
    """The vocabulary under llama.cpp's keys, without their prefix ``tokenizer.ggml.``.

    Args:
        rows: of the model's embedding; ids that the tokenizer does not have are marked unused.

    Raises:
        UserError: llama.cpp has no tokenizer of this kind.
    """
    if isinstance(tokenizer, BytePairTokenizer):
        return _of_our_bpe(tokenizer, rows)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _of_library(tokenizer, rows)
    if isinstance(tokenizer, SentencePieceTokenizer) and tokenizer.model.algorithm == "bpe":
        return _of_sentencepiece(tokenizer, rows)
    got = type(tokenizer).__name__
    raise UserError("this tokenizer has no GGUF form", expected="byte-level BPE or SentencePiece BPE", got=got)


def _of_our_bpe(tokenizer: BytePairTokenizer, rows: int) -> Json:
    vocabulary = tokenizer.vocabulary
    if vocabulary.pattern not in PRE:
        raise UserError(f"llama.cpp can't cut text by the pattern {vocabulary.pattern!r}", expected=" | ".join(PRE))
    spelled = {id: spell(token) for token, id in vocabulary.ids.items()}
    tokens, types = _token_list(spelled, dict.fromkeys(vocabulary.special.values(), TokenType.CONTROL), rows)
    for name, id in vocabulary.special.items():
        tokens[id] = name
    merges = [f"{spell(left)} {spell(right)}" for left, right in vocabulary.merges]
    pre = PRE[vocabulary.pattern]
    return {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges}


def _of_library(tokenizer: HuggingFaceTokenizer, rows: int) -> Json:
    data = tokenizer.content()
    model, pre = data["model"], pre_of(data)
    normalizer = data.get("normalizer")
    if model.get("type") != "BPE" or pre is None or (normalizer is not None and normalizer.get("type") != "NFC"):
        raise UserError(
            "this tokenizer has no GGUF form",
            expected="byte-level BPE with a split rule of llama.cpp's: " + ", ".join(PRE_TOKENIZERS),
            got=f"{model.get('type')}, or a split rule that llama.cpp has no name for",
            fix="Export it with --format hf",
        )
    tokens = {id: token for token, id in model["vocab"].items()}
    kinds = dict.fromkeys(tokenizer.special.values(), TokenType.CONTROL)
    for token in data["added_tokens"]:
        tokens[token["id"]] = token["content"]
        kinds.setdefault(token["id"], TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    spelled, types = _token_list(tokens, kinds, rows)
    return {"model": "gpt2", "pre": pre, "tokens": spelled, "token_type": types, "merges": merges}


def _of_sentencepiece(tokenizer: SentencePieceTokenizer, rows: int) -> Json:
    model = tokenizer.model
    tokens = {id: piece.text for id, piece in enumerate(model.pieces)}
    kinds = {id: TokenType(piece.kind.value) for id, piece in enumerate(model.pieces)}
    for name, id in tokenizer.special.items():
        tokens[id] = name
        if kinds.get(id) is not TokenType.UNKNOWN:
            kinds[id] = TokenType.CONTROL
    for id, kind in kinds.items():  # llama.cpp looks for these in the text as it is
        tokens[id] = tokens[id].replace(SPACE, " ") if kind is TokenType.USER_DEFINED else tokens[id]
    spelled, types = _token_list(tokens, kinds, rows)
    scores = [piece.score for piece in model.pieces] + [0.0] * (len(spelled) - len(model.pieces))
    keys: Json = {"model": "llama", "pre": "default", "tokens": spelled, "token_type": types, "scores": scores}
    return keys | {"add_space_prefix": model.add_dummy_prefix}


def _token_list(
    tokens: Mapping[int, str], kinds: Mapping[int, TokenType], rows: int
) -> tuple[list[str], list[TokenType]]:
    """Every row's spelling and kind; rows that the tokenizer has no token for are marked unused."""
    spelled = [tokens.get(id, f"[PAD{id}]") for id in range(rows)]
    types = [kinds.get(id, TokenType.NORMAL) if id in tokens or id in kinds else TokenType.UNUSED for id in range(rows)]
    return spelled, types
