"""SentencePiece normalization: compiled character replacements, then white space.

The rules (``nmt_nfkc`` and its like: full-width letters become ordinary ones, tabs become spaces, control characters
go) are compiled into the model file as a trie in two arrays folded into one (Aoe 1989, "An Efficient Digital Search
Algorithm by Using a Double-Array Structure"): from a node, the child for byte b sits at ``offset(node) ^ b``, and is
there if that cell's label is b. Looking up is three bit operations per byte.
"""

from __future__ import annotations

import struct

from underhood.text.sentencepiece_model import SentencePieceModel

SPACE = "▁"  # U+2581, how a space is written inside pieces


class Charsmap:
    """The compiled rules: `longest` finds the rule that applies at a place.

    The layout: four bytes with the size of the trie, the trie's cells of four bytes, then all replacements one after
    the other, each ended by a zero byte. A trie value is a replacement's place among them.

    Raises:
        ValueError: the sizes do not fit.
    """

    def __init__(self, compiled: bytes):
        if len(compiled) < 4:
            raise ValueError("the normalisation rules are cut short")
        [size] = struct.unpack_from("<I", compiled)
        if size % 4 or not size or 4 + size > len(compiled):
            raise ValueError("the normalisation rules are damaged")
        self._cells = struct.unpack_from(f"<{size // 4}I", compiled, 4)
        self._texts = compiled[4 + size :]

    def longest(self, text: bytes, at: int) -> tuple[int, str] | None:
        """The length of the longest rule that matches at `at`, and its replacement; None if there is none."""
        cells = self._cells
        match = None
        node = _offset(cells[0])
        for index in range(at, len(text)):
            node ^= text[index]
            if node >= len(cells) or cells[node] & 0x800000FF != text[index]:
                break
            cell = cells[node]
            node ^= _offset(cell)
            if cell >> 8 & 1 and node < len(cells):
                match = index + 1 - at, cells[node] & 0x7FFFFFFF
        if match is None:
            return None
        length, start = match
        return length, self._texts[start : self._texts.index(b"\0", start)].decode("utf-8")


def _offset(cell: int) -> int:
    return cell >> 10 << ((cell & 0x200) >> 6)


class Normalizer:
    """Prepares a text for the model; see `SentencePieceModel` for the switches.

    Args:
        kept: pieces that the rules must not touch (user-defined ones).
    """

    def __init__(self, model: SentencePieceModel, kept: "PrefixMatcher"):
        self._model, self._kept = model, kept
        self._rules = Charsmap(model.charsmap) if model.charsmap else None

    def __call__(self, text: str) -> str:
        """The text as the pieces spell it; empty if nothing but removable spaces is there."""
        model = self._model
        units = self._units(text)
        if model.remove_extra_whitespaces:
            start = next((index for index, unit in enumerate(units) if unit != " "), len(units))
            units = units[start:]
        if not units:
            return ""
        out: list[str] = []
        after_space = model.remove_extra_whitespaces
        for unit in units:
            if after_space:
                unit = unit.lstrip(" ")
            if unit:
                out.append(unit)
                after_space = model.remove_extra_whitespaces and unit.endswith(" ")
        normal = "".join(out)
        if model.remove_extra_whitespaces:
            normal = normal.rstrip(" " + SPACE if model.escape_whitespaces else " ")
            if not normal and not model.space_at_the_end:
                return ""  # the rules removed every character: the space in front is one to remove, too
        if model.add_dummy_prefix:
            normal = normal + " " if model.space_at_the_end else " " + normal
        return normal.replace(" ", SPACE) if model.escape_whitespaces else normal

    def _units(self, text: str) -> list[str]:
        """The replacements, one for each rule that applied or character that none applied to."""
        if self._rules is None and not self._kept:
            return list(text)
        units: list[str] = []
        data = text.encode()
        at = byte = 0
        while at < len(text):
            if self._kept and (length := self._kept.longest(text, at)):
                unit = text[at : at + length]
                width = len(unit.encode())
            elif self._rules is not None and (match := self._rules.longest(data, byte)) is not None:
                width, unit = match
                length = len(data[byte : byte + width].decode())
            else:
                unit, length = text[at], 1
                width = len(unit.encode())
            units.append(unit)
            at += length
            byte += width
        return units


class PrefixMatcher:
    """Finds the longest of some strings that begins at a place of a text; false if there are no strings."""

    def __init__(self, strings: "list[str]"):
        self._by_first: dict[str, list[str]] = {}
        for string in sorted(strings, key=len, reverse=True):
            if string:
                self._by_first.setdefault(string[0], []).append(string)

    def __bool__(self) -> bool:
        return bool(self._by_first)

    def longest(self, text: str, at: int) -> int:
        """The length of the longest match, 0 if there is none."""
        for string in self._by_first.get(text[at], ()):
            if text.startswith(string, at):
                return len(string)
        return 0
