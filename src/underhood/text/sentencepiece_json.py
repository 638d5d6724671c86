"""SentencePiece BPE as a ``tokenizer.json``, for a model whose tokenizer came in a GGUF file.

SentencePiece merges whatever neighbours join to the piece with the highest score; ``tokenizer.json`` holds an ordered
list of pairs. The list is every way to cut a piece into two other pieces, ordered by the piece's score (transformers'
``convert_slow_tokenizer.py``, `generate_merges`). It says the same but where equal scores meet in one place, where
SentencePiece takes the leftmost; so the result is compared with the tokenizer before it is given out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from underhood.core.errors import UserError
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.normalize import SPACE
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.sentencepiece_model import Kind, SentencePieceModel

Json = dict[str, Any]

CHECKED_PIECES = 1500
"""Pieces of the vocabulary in the texts that both tokenizers must cut alike."""


def sentencepiece_json(tokenizer: SentencePieceTokenizer) -> Json:
    """The content of a ``tokenizer.json`` with the same ids.

    Raises:
        UserError: the format has no form for the tokenizer: a unigram model or one with character rules of its own,
            pieces of the user's behind an added space, or scores that no order of merges expresses.
    """
    model = tokenizer.model
    _check_form(tokenizer)
    special = set(tokenizer.special.values())
    kinds = {id: piece.kind for id, piece in enumerate(model.pieces) if id not in special}
    usable = {model.pieces[id].text: id for id, kind in kinds.items() if kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    vocabulary = {piece.text: id for id, piece in enumerate(model.pieces)} | dict(tokenizer.special)
    added = [_added(tokenizer, name, id, special=True) for name, id in tokenizer.special.items()]
    kept = [id for id, kind in kinds.items() if kind is Kind.USER_DEFINED]
    added += [_added(tokenizer, model.pieces[id].text, id, special=False) for id in kept]
    data: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": _sequence("Sequence", "normalizers", _normalizers(model)),
        "pre_tokenizer": None,
        "post_processor": _opening(tokenizer),
        "decoder": _sequence("Sequence", "decoders", _decoders(model)),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next(piece.text for piece in model.pieces if piece.kind is Kind.UNKNOWN),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges({text: model.pieces[id].score for text, id in usable.items()}, model),
        },
    }
    _compare(tokenizer, data)
    return data


def _check_form(tokenizer: SentencePieceTokenizer) -> None:
    model = tokenizer.model
    others = {
        "a unigram model": model.algorithm != "bpe",
        "character rules of its own": bool(model.charsmap),
        "spaces behind words, or kept as they are": model.space_at_the_end or not model.escape_whitespaces,
        "user-defined pieces behind an added space": model.add_dummy_prefix
        and any(piece.kind is Kind.USER_DEFINED for piece in model.pieces),
    }
    if reason := next((reason for reason, applies in others.items() if applies), None):
        raise UserError(
            "this tokenizer has no Hugging Face form",
            expected="SentencePiece BPE of the Llama kind",
            got=reason,
            fix="Export it with --format gguf",
        )


def _merges(scores: dict[str, float], model: SentencePieceModel) -> list[list[str]]:
    """All pairs of pieces that join to a piece, the piece with the highest score first."""
    unused = {piece.text for piece in model.pieces if piece.kind is Kind.UNUSED}
    pairs: list[tuple[float, int, int, str, str]] = []
    for order, (text, score) in enumerate(scores.items()):
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in scores and right in scores:
                pairs.append((-score, order, -cut, left, right))
            elif (left in unused or left in scores) and (right in unused or right in scores):
                raise UserError(
                    "this tokenizer has no Hugging Face form",
                    got=f"the piece {text!r}, which is made of pieces that are never given",
                    fix="Export it with --format gguf",
                )
    return [[left, right] for *_, left, right in sorted(pairs)]


def _normalizers(model: SentencePieceModel) -> Iterator[Json]:
    if model.remove_extra_whitespaces:
        yield {"type": "Replace", "pattern": {"Regex": rf"\A +|[ {SPACE}]+\z"}, "content": ""}
        yield {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    if model.add_dummy_prefix:
        yield {"type": "Prepend", "prepend": SPACE}
    yield {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def _decoders(model: SentencePieceModel) -> Iterator[Json]:
    yield {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    yield {"type": "ByteFallback"}
    yield {"type": "Fuse"}
    if model.add_dummy_prefix:
        yield {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _sequence(kind: str, key: str, steps: Iterator[Json]) -> Json:
    return {"type": kind, key: list(steps)}


def _added(tokenizer: SentencePieceTokenizer, name: str, id: int, *, special: bool) -> Json:
    """A token that is looked for in the text: special ones as it is, the user's pieces when spaces are written ▁."""
    return {
        "id": id,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": id in tokenizer.stripping,
        "normalized": not special,
        "special": special,
    }


def _opening(tokenizer: SentencePieceTokenizer) -> Json | None:
    """Puts the opening token in front of each text, as the file says that its model wants it."""
    if not tokenizer.prefix_ids:
        return None
    names = {id: name for name, id in tokenizer.special.items()}
    [id] = tokenizer.prefix_ids
    single = [{"SpecialToken": {"id": names[id], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [{"SpecialToken": {"id": names[id], "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {names[id]: {"id": names[id], "ids": [id], "tokens": [names[id]]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single + pair, "special_tokens": tokens}


def _compare(tokenizer: SentencePieceTokenizer, data: Json) -> None:
    """Encodes texts of the vocabulary's own pieces, and runs of one character, both ways.

    Raises:
        UserError: the ids of one of them differ.
    """
    made = HuggingFaceTokenizer(data, where="the tokenizer to write")
    pieces = [piece.text.replace(SPACE, " ") for piece in tokenizer.model.pieces if piece.kind is Kind.NORMAL]
    chosen = pieces[:: max(1, len(pieces) // CHECKED_PIECES)]
    texts = ["".join(chosen[start : start + 20]) for start in range(0, len(chosen), 20)]
    texts += [character * count for character in " .-=a0\n" for count in range(1, 20)]
    for text in texts:
        if made.encode(text) != tokenizer.encode(text):
            raise UserError(
                "this tokenizer has no Hugging Face form",
                got=f"{text[:20]!r}, which a list of merges would cut otherwise",
                fix="Export it with --format gguf",
            )
