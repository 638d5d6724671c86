"""Character-level tokenizer: one id per character, as in nanoGPT's Shakespeare model."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.text.files import read_json, write_json
from underhood.text.token_table import TokenTable

FORMAT = "underhood characters 1"


class CharacterTokenizer(TokenTable):
    """Ids in the order of `characters`, special tokens behind them. Implements `core.protocols.Tokenizer`.

    Args:
        characters: the vocabulary, each a single character, none twice.
        special: names of tokens that only code may insert.

    Raises:
        UserError: no characters, one that appears twice or has no UTF-8 form, or a special name of one character.
    """

    def __init__(self, characters: Sequence[str], special: Sequence[str] = ()):
        if not characters:
            raise UserError("there are no characters to make a tokenizer from")
        for index, character in enumerate(characters):
            if len(character) != 1 or character in characters[:index] or "\ud800" <= character <= "\udfff":
                raise UserError("the vocabulary is broken", expected="distinct characters", got=_name(character))
        for index, name in enumerate(special):
            if len(name) < 2 or name in special[:index]:
                raise UserError("special tokens need distinct names of two characters or more", got=repr(name))
        self.characters = "".join(characters)
        self._id = {character: id for id, character in enumerate(characters)}
        self._special = {name: len(self.characters) + index for index, name in enumerate(special)}
        self._bytes = [token.encode() for token in (*characters, *special)]

    @classmethod
    def from_texts(cls, texts: str | Iterable[str], special: Sequence[str] = ()) -> CharacterTokenizer:
        """The vocabulary of all characters of one or several texts, in code point order."""
        alphabet: set[str] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            alphabet.update(text)
        return cls(sorted(alphabet), special)

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharacterTokenizer) and self._bytes == other._bytes

    __hash__ = None  # type: ignore[assignment]

    def encode(self, text: str) -> list[int]:
        """One id per character.

        Raises:
            UserError: a character is not in the vocabulary; the message names it and its position.
        """
        try:
            return [self._id[character] for character in text]
        except KeyError as error:
            unknown = error.args[0]
            what = f"the character {_name(unknown)} at {text.index(unknown)} is not in the vocabulary"
            fix = "Use text like the one it was made from, or train a byte-level BPE, which can spell anything"
            raise UserError(f"{what} of {len(self.characters)} characters", fix=fix) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a small JSON file; readers see the old file or the whole new one."""
        write_json(Path(path), {"format": FORMAT, "characters": self.characters, "special": list(self._special)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharacterTokenizer:
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing, broken or of another format.
        """
        return cls.from_json(read_json(Path(path)), str(path))

    @classmethod
    def from_json(cls, data: Any, where: str) -> CharacterTokenizer:
        """The tokenizer that a file's JSON describes; `where` is how errors call the file."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = repr(data.get("format")) if isinstance(data, dict) else type(data).__name__
            raise UserError(f"{where} is not a character tokenizer", expected=f"format {FORMAT!r}", got=got)
        characters, special = data.get("characters"), data.get("special", [])
        if (
            not isinstance(characters, str)
            or not isinstance(special, list)
            or not all(isinstance(name, str) for name in special)
        ):
            raise UserError(f"{where} is broken", expected="a text of characters and a list of special names")
        try:
            return cls(characters, special)
        except UserError as error:
            raise UserError(f"{where}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error


def _name(character: str) -> str:
    names = [f"U+{ord(point):04X} {unicodedata.name(point, '')}".strip() for point in character[:3]]
    return f"{character!r} ({', '.join(names)})"
