"""The standard library's source as characters, with what is inside strings; and brackets that a text must close."""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from underhood.core.text_files import read_text

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""Characters by id: the newline and printable ASCII; others are left out."""

OPEN, CLOSE, LETTERS = "([", ")]", "ab"
MARKUP = OPEN + CLOSE + LETTERS

Ids = NDArray[np.int64]


def library_source(start: int, count: int) -> str:
    """So many characters of the standard library's modules in alphabetical order.

    They begin with the first module that begins at `start` or later, so that no string is open.
    """
    passed, pieces = 0, []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        module = "".join(c for c in read_text(path) if c in _KNOWN) + "\n"
        if passed >= start:
            pieces.append(module)
        passed += len(module)
        if passed >= start + count and sum(map(len, pieces)) >= count:
            break
    return "".join(pieces)[:count]


_KNOWN = frozenset(CHARACTERS)
_IDS = {character: number for number, character in enumerate(CHARACTERS)}


def character_ids(text: str) -> Ids:
    return np.array([_IDS[character] for character in text])


def inside_strings(text: str) -> NDArray[np.bool_]:
    """Which characters of a Python source are inside string literals, their quotes left out; comments are not."""
    starts = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
    inside = np.zeros(len(text), dtype=bool)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                first, last = (int(starts[line - 1]) + column for line, column in (token.start, token.end))
                inside[first + 1 : last - 1] = True
    except (tokenize.TokenError, SyntaxError):
        pass  # a text that is cut off in a string: what came before counts
    return inside


def closed_rightly(text: str) -> tuple[int, int]:
    """Of the closing brackets in a text, how many close the last one that was opened, and how many there are."""
    pairs, waiting, right, closing = dict(zip(")]}", "([{", strict=True)), [], 0, 0
    for character in text:
        if character in pairs.values():
            waiting.append(character)
        elif character in pairs:
            closing += 1
            right += bool(waiting) and waiting.pop() == pairs[character]
    return right, closing


def is_statement(line: str) -> bool:
    """Whether a line, without its indentation, is Python by itself or begins a block."""
    line = line.strip()
    block = {"elif ": "if 1: pass\n", "else:": "if 1: pass\n", "except": "try: pass\n", "finally": "try: pass\n"}
    before = next((head for start, head in block.items() if line.startswith(start)), "")
    try:
        ast.parse(before + line + (" pass" if line.endswith(":") else ""))
    except (SyntaxError, ValueError):
        return False
    return True


def random_markup(rng: np.random.Generator, count: int) -> Ids:
    """Letters, and among them brackets of two kinds around 5 to 8 letters: what closes one was fixed long before."""
    ids: list[int] = []
    while len(ids) < count:
        kind = int(rng.integers(2))
        inner, between = (rng.integers(4, len(MARKUP), size=rng.integers(*ends)).tolist() for ends in ((5, 9), (1, 3)))
        ids += [kind, *inner, 2 + kind, *between]
    return np.array(ids[:count])
