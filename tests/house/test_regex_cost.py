"""No regular expression takes quadratic time: a lint over every pattern of the package, by its parse tree.

Backtracking costs more than linear time in two ways, and each shows in the pattern:

- two unbounded repeats that can share a run of characters, with something behind them that may fail (``\\s*\\s*x``):
  every way to divide the run is tried;
- a search whose match can begin anywhere in a run that an unbounded repeat reads to its end before it fails
  (``\\s+$``, ``\\[.*?\\]``): the run is read again from each of its characters.

The lint errs on the safe side; what it suspects wrongly is listed with the reason.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import regex

import underhood
from needs import REPOSITORY
from underhood.align.rewards import _NUMBER
from underhood.data.pydocs import _CALL_LINE
from underhood.recipes.film import _SIGNATURE
from underhood.retrieve.followup import _TITLE_OF_ANSWER
from underhood.retrieve.terms import TOKEN
from underhood.ui.unicode_math import MATH, SIMPLE
from underhood.web.tools import HEADER

PACKAGE = REPOSITORY / "src" / "underhood"
ALPHABET = [*map(chr, range(1, 127)), *"éßЖж中。…’”»½\u2003\u00a0\u0301▁"]
UNBOUNDED = 100
"""Repeats up to this often cost a constant factor at most."""

Item = tuple[Any, Any]

OF_THE_PACKAGE = ("curriculum", "path")
"""Folders whose patterns read texts of the package only."""

MATCHED = "tried at the beginning of a text only"
SOUND = {
    SIMPLE.pattern: "reads formulas of milestones",
    r"\[([^\]]+)\]\(https?://[^)\s]+\)": "reads the prose of milestones",
    MATH.pattern: "reads the prose of milestones",
    r"--([\w-]+): light-dark\(([^,()]+), ([^()]+)\);": "reads our own style sheet",
    r"--([\w-]+): ((?:light-dark\([^)]*\)|[^;]+));": "reads our own style sheet",
    r"\n\s*\n": "a run with a second line feed matches, so a vain read ends before the next start",
    r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)]))\s+|\n\s*\n": "as above",
    r"\p{Lu}+(?=\p{Lu}\p{Ll})|\p{Lu}?[\p{Ll}\p{Lo}\p{M}]+|\p{Lu}+|\p{N}+": "a later branch takes the whole run",
    TOKEN.pattern: "what may fail is optional: a word always matches",
    _CALL_LINE.pattern: "reads lines of Python's documentation",
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf": "reads names of files",
    r"([=\-~^*+#\"'`.:_])\1{2,}\s*$": MATCHED,
    r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S": MATCHED,
    r"\s*(\S?)": MATCHED,
    HEADER.pattern: MATCHED,
    _TITLE_OF_ANSWER.pattern: MATCHED,
    _SIGNATURE.pattern: MATCHED,
    _NUMBER.pattern: "a digit always matches: only a sign or a point is read in vain",
}


def patterns() -> dict[str, str]:
    """Every pattern with a file that has it: literal ones by the sources, composed ones by the modules' globals."""
    found_in: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] in OF_THE_PACKAGE:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
                first, method = node.args[0], node.func.attr
                ours = ast.unparse(node.func.value) in ("re", "regex") and method not in (
                    "match",
                    "fullmatch",
                    "escape",
                )
                if ours and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found_in.setdefault(first.value, file.relative_to(PACKAGE).as_posix())
    for info in pkgutil.walk_packages(underhood.__path__, "underhood."):
        if info.name.endswith("__main__") or info.name.split(".")[1] in OF_THE_PACKAGE:
            continue
        for value in vars(importlib.import_module(info.name)).values():
            for pattern in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(pattern, (re.Pattern, type(regex.compile("")))) and isinstance(pattern.pattern, str):
                    found_in.setdefault(pattern.pattern, info.name)
    return found_in


def plain(pattern: str) -> str:
    """A pattern of the `regex` package in the words of `re`: classes of letters become their nearest like."""
    classes = {"Lu": "A-Z", "Ll": "a-zé", "Lo": "中", "M": "\u0301", "N": "0-9½", "L": "A-Za-zé中"}
    for name, like in classes.items():
        pattern = re.sub(rf"(\[[^\]]*)\\p{{{name}}}", lambda match, like=like: match[1] + like, pattern)
        while rf"\p{{{name}}}" in pattern:
            inside = re.search(rf"\[[^\]]*\\p{{{name}}}", pattern)
            pattern = pattern.replace(rf"\p{{{name}}}", like if inside else f"[{like}]", 1)
    return re.sub(r"\\p\{\w+\}", "中", pattern)


def characters(items: list[Item], state: Any) -> set[str]:
    """Every character of the alphabet that some position of these items can match."""
    matched: set[str] = set()
    for op, value in items:
        if op in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY):
            sub = _parser.SubPattern(state, [(op, value)])
            single = _compiler.compile(sub, state.flags)
            matched |= {char for char in ALPHABET if single.fullmatch(char)}
        elif op is _constants.BRANCH:
            matched |= set().union(*(characters(list(branch), state) for branch in value[1]))
        elif op is _constants.SUBPATTERN:
            matched |= characters(list(value[3]), state)
        elif op in REPEATS:
            matched |= characters(list(value[2]), state)
        elif op is _constants.ATOMIC_GROUP:
            matched |= characters(list(value), state)
        elif op is _constants.GROUPREF:
            matched |= set(ALPHABET)
    return matched


REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)


def flat(items: Any) -> Iterator[list[Item]]:
    """The sequences that the items can be read as: groups opened, one for each branch."""
    sequences: list[list[Item]] = [[]]
    for op, value in items:
        if op is _constants.SUBPATTERN:
            inner = list(flat(value[3]))
        elif op is _constants.BRANCH:
            inner = [sequence for branch in value[1] for sequence in flat(branch)]
        elif op in REPEATS and value[:2] == (0, 1):
            inner = [[], *flat(value[2])]
        else:
            inner = [[(op, value)]]
        sequences = [before + after for before in sequences[:200] for after in inner]
    yield from sequences


def is_unbounded(item: Item) -> bool:
    return item[0] in REPEATS and item[1][1] > UNBOUNDED


def width(item: Item, state: Any) -> int:
    return _parser.SubPattern(state, [item]).getwidth()[0]


def runs(item: Item, state: Any) -> set[str]:
    """The characters that a repeat can read again and again: every round may consist of them alone."""
    able: set[str] = set()
    for sequence in flat(item[1][2]):
        needed = [characters([each], state) for each in sequence if width(each, state) > 0]
        able |= set(ALPHABET).intersection(*needed) if needed else characters(sequence, state)
    return able


def suspicions(pattern: str, flags: int = 0) -> list[str]:
    """Why a search with this pattern may take more than linear time in a run of one character; empty if it can't."""
    tree = _parser.parse(plain(pattern), flags)
    state, reasons = tree.state, []
    for sequence in flat(tree):
        for index, item in enumerate(sequence):
            if not is_unbounded(item):
                continue
            own = runs(item, state)
            if nested(item, own, state):
                reasons.append("a repeat within a repeat")
            if not can_fail(sequence[index + 1 :], state):
                continue
            shared = own
            for later in range(index + 1, len(sequence)):
                other = sequence[later]
                if is_unbounded(other) and shared & runs(other, state):
                    if can_fail(sequence[later + 1 :], state):
                        reasons.append("two repeats share a run")
                    break
                if width(other, state) > 0:
                    shared = shared & characters([other], state)
            before = [each for each in sequence[:index] if width(each, state) > 0]
            begins = own.intersection(*(characters([each], state) for each in before))
            if begins and not is_anchored(sequence[:index], begins):
                reasons.append("a match can begin anywhere in a run")
    return reasons


def can_fail(rest: list[Item], state: Any) -> bool:
    tests = (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT)
    return any(width(item, state) > 0 or item[0] in tests for item in rest)


def is_anchored(before: list[Item], run: set[str]) -> bool:
    """Whether a match can only begin where a run begins: at the start, a word's edge, or behind another character."""
    begins = (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)
    words = all(char.isalnum() or char == "_" for char in run)
    for op, value in before:
        if op is _constants.AT and (value in begins or (value is _constants.AT_BOUNDARY and words)):
            return True
        if op in (_constants.ASSERT, _constants.ASSERT_NOT) and value[0] < 0:
            return True
    return False


def nested(item: Item, own: set[str], state: Any) -> bool:
    """``(a+)*``: a round of the repeat is itself a repeat, and nothing separates the rounds."""
    for sequence in flat(item[1][2]):
        for repeat in filter(is_unbounded, sequence):
            rest = [each for each in sequence if each is not repeat and width(each, state) > 0]
            if runs(repeat, state).intersection(own, *(characters([each], state) for each in rest)):
                return True
    return False


def test_patterns_of_the_package_take_linear_time():
    suspected = {pattern: file for pattern, file in patterns().items() if suspicions(pattern)}
    strangers = {pattern: file for pattern, file in suspected.items() if pattern not in SOUND}
    assert not strangers, "write it otherwise, or say in SOUND why it is linear"
    assert set(SOUND) == set(suspected), "take out of SOUND what is not suspected any more"


QUADRATIC = [
    r"[^\S\n]+$",
    r"\[.*?\]",
    r"\s*\[\d+\]",
    r"^\w+\s*[?!.]*\s*$",
    r"(a+)*b",
    r"[.!?]+[\"']*(?=\s|$)",
    r"#+\s+(.*?)\s*#*\s*$",
]
LINEAR = [
    r"\w+",
    r"\s+",
    r"(?<!\s)\s*\[\d+\]",
    r"\n{4,}",
    r"^\w+\s*(?:[?!.]+\s*)?$",
    r"\ba+b+c",
    r"<[^<>]*>",
    r"(a+b)*c",
]


@pytest.mark.parametrize("pattern", QUADRATIC)
def test_lint_sees_quadratic_patterns(pattern: str):
    assert suspicions(pattern)


@pytest.mark.parametrize("pattern", LINEAR)
def test_lint_passes_linear_patterns(pattern: str):
    assert not suspicions(pattern)
