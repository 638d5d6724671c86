"""A milestone's words in the terminal: paragraphs, lists, and formulas in Unicode on lines of their own."""

from __future__ import annotations

import re
import textwrap

from rich.console import Console

from underhood.curriculum.pages.prose import blocks
from underhood.ui.unicode_math import plain_prose

FORMULA_INDENT = 4


def print_prose(out: Console, text: str) -> None:
    """Prints prose in the marks of `underhood.curriculum.pages.prose`, at most as wide as the console."""
    for number, block in enumerate(blocks(text)):
        if number:
            out.print()
        for line in prose_lines(block, out.width):
            out.print(line, soft_wrap=True)


def prose_lines(block: str, width: int) -> list[str]:
    """One paragraph, list or displayed formula as lines."""
    if block.startswith("$$"):
        indent = " " * FORMULA_INDENT
        return textwrap.wrap(plain_prose(block), width, initial_indent=indent, subsequent_indent=2 * indent)
    if block.startswith("- "):
        items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
        return [line for item in items for line in _filled(item, width, "- ", "  ")]
    return _filled(block, width)


def _filled(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    words = " ".join(plain_prose(text).split())
    return textwrap.wrap(words, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
