"""Rows of tables and definitions as blocks of their own, so that the search can select a single fact.

A row's first cell and a definition's term become the innermost heading, which the search weighs most; the other cells
become sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from underhood.data.record_text import field_sentence
from underhood.retrieve.blocks import TextBlock

LONGEST_TERM = 48
"""Characters of a defined term; what precedes a colon later in a line is a part of a sentence."""

_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s")


def expand_block(block: TextBlock) -> Iterator[TextBlock]:
    """The facts in a block: the rows of a table below its header, or the definition that a list item gives.

    "| Basil | 3.20 |" below "| Herb | Price |" becomes "Price: 3.20." below the heading "Basil"; "- Mulch: A cover."
    becomes "A cover." below the heading "Mulch". Any other block comes back as it is.
    """
    stripped = block.text.lstrip()
    item = None if block.verbatim else _ITEM.match(stripped)
    term, colon, text = stripped[item.end() :].partition(": ") if item else ("", "", "")
    if block.verbatim and _is_table(block.text):
        yield from _rows(block)
    elif colon and text.strip() and 0 < len(term.strip()) <= LONGEST_TERM and len(term.split()) <= 6:
        name = term.replace("`", "").strip(" *_")
        yield replace(block, text=text, headings=(*block.headings, name))
    else:
        yield block


def _is_table(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) > 2 and lines[0].lstrip().startswith("|") and "-" in lines[1] and set(lines[1]) <= set("|:- \t")


def _rows(block: TextBlock) -> Iterator[TextBlock]:
    lines = block.text.split("\n")
    header = _cells(lines[0])
    for number, line in enumerate(lines[2:], 2):
        name, *cells = _cells(line)
        fields = [
            field_sentence(label or f"Column {column}", cell)
            for column, (label, cell) in enumerate(zip(header[1:], cells, strict=False), 2)
        ]
        text = " ".join(filter(None, fields))
        if text:
            headings = (*block.headings, name) if name else block.headings
            yield replace(block, text=text, line=block.line + number, headings=headings, verbatim=False)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in _BETWEEN_CELLS.split(inner)]
