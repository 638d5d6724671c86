"""Records (rows of a table, JSON objects) as Markdown text: the name as a heading, every field as a sentence.

``{"name": "Basil", "price_eur": "3.20"}`` becomes::

    # Basil

    Price eur: 3.20.

So a record is read, searched and quoted like any other text, and a field can be quoted by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

RECORD = "record"
"""Kind of a document that is a record."""

NAME_FIELDS = ("name", "title", "term", "word", "question", "product", "item", "city", "subject", "key", "id")
"""Columns that say what a record is about, in this order; else the first column of distinct words does."""

LONGEST_NAME = 80
"""Characters of a name at most; longer values are descriptions."""


def is_flat(record: Mapping[str, Any]) -> bool:
    """Whether a record has a field that can be written in words: text, a number, yes or no, or a list of them."""
    return any(_words(value) for value in record.values())


def name_column(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str | None:
    """The column whose values name the records; None if no column tells them apart."""
    by_name = {column.casefold().replace("_", " ").strip(): column for column in reversed(columns)}
    usual = [by_name[name] for name in NAME_FIELDS if name in by_name]
    worded = [column for column in columns if any(not _is_number(_words(record.get(column))) for record in records)]
    for column in dict.fromkeys((*usual, *worded, *columns)):
        values = [_words(record.get(column)) for record in records]
        if all(values) and len(set(values)) == len(values) and max(map(len, values)) <= LONGEST_NAME:
            return column
    return None


def record_text(record: Mapping[str, Any], named_by: str | None) -> str:
    """A record as Markdown. Fields that are empty, or tables themselves, are left out.

    Args:
        named_by: the column whose value becomes the heading.
    """
    name = _words(record.get(named_by)) if named_by else ""
    heading = f"# {field_label(named_by)} {name}" if named_by and _is_number(name) else f"# {name}"
    fields = [field_sentence(column, _words(value)) for column, value in record.items() if column != named_by]
    body = "\n".join(filter(None, fields))
    return f"{heading}\n\n{body}".rstrip() if name else body


def field_sentence(label: str, value: str) -> str:
    """A field as a sentence, "Price eur: 3.20."; "" without a value."""
    value = " ".join(value.split())
    if not value:
        return ""
    end = "" if value.endswith((".", "!", "?", "…")) else "."
    return f"{field_label(label)}: {value}{end}"


def field_label(column: str) -> str:
    """A column's name as the beginning of a sentence: ``price_eur`` → "Price eur"."""
    words = " ".join(column.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        items = [_words(item) for item in value]
        return ", ".join(items) if all(items) else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


def _is_number(text: str) -> bool:
    return bool(text) and all(character.isdigit() or character in "+-.,: %" for character in text)
