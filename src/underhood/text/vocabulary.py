"""Vocabulary of a byte-level BPE tokenizer: the bytes of each id, and the merges in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from underhood.core.errors import UserError
from underhood.text.merges import Pair
from underhood.text.split import PATTERNS


def _byte_characters() -> dict[int, str]:
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


BYTE_TO_CHARACTER: Mapping[int, str] = _byte_characters()
"""GPT-2's way to write bytes in a text file: visible Latin-1 characters are themselves, the 68 others (space,
control codes, …) are shifted to U+0100 and up; a space reads ``Ġ``, a line feed ``Ċ``. In GPT-2's id order."""

CHARACTER_TO_BYTE: Mapping[str, int] = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """The token's bytes in GPT-2's visible alphabet: how vocabularies are written in files."""
    return "".join(BYTE_TO_CHARACTER[byte] for byte in token)


def unspell(token: str) -> bytes:
    """The inverse of `spell`; KeyError for a character outside the alphabet."""
    return bytes(CHARACTER_TO_BYTE[character] for character in token)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Byte-level BPE vocabulary: token bytes, merges and special tokens, checked on construction.

    Attributes:
        ids: id of each token's bytes; holds all 256 single bytes.
        merges: the two parts of each merge, earliest learnt first.
        special: id of each special token by name.
        pattern: how text is cut first, a key of `split.PATTERNS`.

    Raises:
        UserError: ids are not exactly 0 … V−1, a single byte is missing, or a merge makes or uses an unknown token.
    """

    ids: Mapping[bytes, int]
    merges: tuple[tuple[bytes, bytes], ...]
    special: Mapping[str, int]
    pattern: str = "qwen2"

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise UserError("unknown split pattern", expected=" | ".join(PATTERNS), got=repr(self.pattern))
        used = sorted([*self.ids.values(), *self.special.values()])
        if used != list(range(len(used))):
            wrong = next(index for index, value in enumerate(used) if index != value)
            got = f"id {used[wrong]} where {wrong} was due"
            raise UserError("the vocabulary's ids have gaps or repeats", expected=f"0 … {len(used) - 1}", got=got)
        missing = [byte for byte in range(256) if bytes([byte]) not in self.ids]
        if missing:
            raise UserError(
                f"the vocabulary cannot spell every text: {len(missing)} of the 256 bytes have no token",
                got=f"no token for byte 0x{missing[0]:02x}",
                fix="only byte-level vocabularies are supported",
            )
        known = {bytes([byte]) for byte in range(256)}
        for number, (left, right) in enumerate(self.merges):
            for symbol in (left, right):
                if symbol not in known:
                    raise UserError(f"merge {number} uses {spell(symbol)!r} before any merge has made it")
            if left + right not in self.ids:
                raise UserError(f"merge {number} makes {spell(left + right)!r}, which is not in the vocabulary")
            known.add(left + right)

    @property
    def size(self) -> int:
        return len(self.ids) + len(self.special)

    def ranks(self) -> dict[Pair, tuple[int, int]]:
        """For `merges.apply_merges`: (left id, right id) → (when it was learnt, the id that it makes)."""
        ids = self.ids
        ranks: dict[Pair, tuple[int, int]] = {}
        for number, (left, right) in enumerate(self.merges):
            ranks.setdefault((ids[left], ids[right]), (number, ids[left + right]))
        return ranks


def check_special(names: Iterable[str]) -> tuple[str, ...]:
    """The names of special tokens, if they are usable.

    Raises:
        UserError: a name is empty, repeated, or such that ordinary text could become a token of the same spelling.
    """
    from underhood.text.split import split

    names = tuple(names)
    for index, name in enumerate(names):
        if not name or name in names[:index]:
            raise UserError(f"special tokens need distinct, non-empty names, got {name!r}")
        if len(split(name)) < 2:
            raise UserError(
                f"{name!r} cannot be a special token: ordinary text could become a token of the same spelling",
                fix=f"write it like '<|{name.strip('<|>') or 'name'}|>'",
            )
    return names
