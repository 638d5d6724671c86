"""Parser for SentencePiece's ``.model`` file: a protocol buffer of scored pieces and normalization rules.

Kudo and Richardson 2018, "SentencePiece: A simple and language independent subword tokenizer and detokenizer for
Neural Text Processing", section 3.4: everything needed to encode is inside the one file, normalisation included.

A protocol buffer is a list of fields: a number that says which field and how long it is, then its bytes. Reading it
takes thirty lines, so there is no dependency for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from underhood.core.errors import UserError


class Kind(IntEnum):
    """Type of a vocabulary piece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # only code puts it in: <s>, </s>
    USER_DEFINED = 4  # always cut out of the text as a whole
    UNUSED = 5  # in the file, never produced
    BYTE = 6  # <0x00> … <0xFF>, for what no piece spells


@dataclass(frozen=True)
class VocabularyPiece:
    """One entry of the vocabulary; its id is its place. `score` is a log-probability (unigram) or −rank (BPE)."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """The content of a ``.model`` file.

    Attributes:
        pieces: the vocabulary in the order of ids.
        algorithm: "unigram" or "bpe".
        byte_fallback: characters without a piece are spelled as byte pieces instead of the unknown one.
        charsmap: compiled normalisation rules; empty for none (see `normalize.Charsmap`).
        add_dummy_prefix: a space is put in front, so that a first word is the same piece as a later one.
        remove_extra_whitespaces: spaces at both ends go, runs become one.
        escape_whitespaces: spaces are written ``▁``.
        space_at_the_end: the space of a word is behind it, and so does the added one.
        unknown_text: what the unknown piece decodes to.
    """

    pieces: tuple[VocabularyPiece, ...]
    algorithm: str
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    space_at_the_end: bool = False
    unknown_text: str = " ⁇ "


def read_model(path: Path) -> SentencePieceModel:
    """Reads a ``.model`` file.

    Raises:
        UserError: the file is missing, no SentencePiece model, cut short, or of an algorithm other than the two.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return parse_model(data)
    except UserError as error:
        raise UserError(f"{path}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is not a SentencePiece model, or it is damaged: {error}") from error


def parse_model(data: bytes) -> SentencePieceModel:
    """The model in the bytes of a ``.model`` file; ValueError where they are none."""
    pieces: list[VocabularyPiece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in fields(data):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:
            trainer = dict(fields(_message(value)))
        elif number == 3:
            normalizer = dict(fields(_message(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    if sum(piece.kind is Kind.UNKNOWN for piece in pieces) != 1:
        raise ValueError("it does not have exactly one unknown piece")
    algorithm = {1: "unigram", 2: "bpe"}.get(_number(trainer.get(3, 1)))
    if algorithm is None:
        raise UserError("another kind of SentencePiece model", expected="unigram or BPE", got=f"type {trainer.get(3)}")
    unknown = trainer.get(44)
    return SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=algorithm,
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=_message(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        space_at_the_end=bool(trainer.get(24, 0)),
        unknown_text=" ⁇ " if unknown is None else _message(unknown).decode("utf-8"),
    )


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message as (number, value).

    Varints come as integers, everything else as bytes: four for a float, eight for a double, any number for strings
    and messages.

    Raises:
        ValueError: the bytes are not a message, or end too early.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(data, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire_type} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"it ends at byte {len(data)}, inside a field that goes on to {at + length}")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits per byte, lowest first; the top bit says that more follow."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a broken number at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _piece(data: bytes) -> VocabularyPiece:
    entry = dict(fields(data))
    [score] = struct.unpack("<f", _message(entry.get(2, b"\0\0\0\0")))
    return VocabularyPiece(_message(entry.get(1, b"")).decode("utf-8"), score, Kind(_number(entry.get(3, 1))))


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text was due")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("text where a number was due")
    return value
