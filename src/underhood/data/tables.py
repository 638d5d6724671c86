"""Delimited text tables (CSV, TSV): the separator from the header, the rows with their lines.

Spreadsheets write what their country's comma leaves free: ``,``, ``;`` or a tab, Excel's "Unicode text" in UTF-16. The
ending of a file says little about it, so the separator is the one that the first line shows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.text_files import read_content, read_filled_text

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

Line = tuple[int, list[str]]
"""The number of a line, and its cells."""


def table_rows(path: Path, known: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a table, e.g. ``("a.csv line 3", {"text": …, "label": …})``.

    A table without a header has two columns; the one with fewer different values is the label.

    Args:
        known: names of columns, lower case, by which a header is known.

    Raises:
        UserError: no such file, an empty one, or a line with another number of columns, which is named.
    """
    lines = cut_table(path, known)
    columns = len(lines[0][1])
    for number, row in lines:
        if len(row) != columns:
            expected = f"{columns} columns as in the first line"
            raise UserError(f"{path} line {number} has another number of columns", expected=expected, got=str(len(row)))
    header = [cell.strip() for cell in lines[0][1]]
    if any(cell.casefold() in known for cell in header) and len(lines) > 1:
        return [(f"{path} line {n}", dict(zip(header, row, strict=True))) for n, row in lines[1:]]
    if columns != 2:
        raise UserError(f"{path} has no header, and {columns} columns", expected="a header, or a text and a label")
    values = [len({row[column].strip() for _, row in lines}) for column in range(2)]
    names = ["text", "label"] if values[1] <= values[0] else ["label", "text"]
    return [(f"{path} line {n}", dict(zip(names, row, strict=True))) for n, row in lines]


def cut_table(path: Path, known: Collection[str]) -> list[Line]:
    """The lines of a table with their cells, the header among them if it has one.

    Args:
        known: names of columns, lower case, by which a header and its separator are known.

    Raises:
        UserError: no such file, or an empty one.
    """
    data, text = read_content(path), read_filled_text(path)
    # Excel quotes cells of its tab-separated text; in files that programs write, a quotation mark is part of the text.
    return _lines(text, path, known, quoted_tabs=data.startswith(_UTF16_MARKS))


def data_table(path: Path) -> tuple[list[str], list[Line]]:
    """Column names and rows of a table with a header, whatever its columns are; every row with its first line.

    The separator is the one that cuts the header into most columns and every line alike. A column without a name is
    called by its number.

    Raises:
        UserError: no such file, an empty one, no row below the header, or a line with another number of columns.
    """
    data, text = read_content(path), read_filled_text(path)
    quoted_tabs = data.startswith(_UTF16_MARKS)
    first, _, rest = text.partition("\n")
    skipped, separators = 0, list(SEPARATORS)
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        text, skipped, separators = rest, 1, [first.strip()[4]]
    elif path.suffix.lower() == ".tsv":
        separators.insert(0, "\t")
    tried = [_cut(text, separator, quoted_tabs, first_lines=True) for separator in separators]
    lines = max(tried, key=lambda lines: (_is_even(lines), len(lines[0][1])))
    lines = [(number + skipped, [cell.strip() for cell in row]) for number, row in lines if any(map(str.strip, row))]
    header = [cell or f"column {number}" for number, cell in enumerate(lines[0][1], 1)]
    if len(lines) < 2:
        raise UserError(f"{path} has a header and no row", expected="rows below the names of the columns")
    for number, row in lines[1:]:
        if len(row) != len(header):
            expected = f"{len(header)} columns as in the first line ({', '.join(header[:6])})"
            raise UserError(f"{path} line {number} has another number of columns", expected=expected, got=str(len(row)))
    if len(set(header)) < len(header):
        twice = next(cell for cell in header if header.count(cell) > 1)
        raise UserError(f"{path} has two columns of the name {twice!r}", fix="Give each column a name of its own")
    return header, lines[1:]


def _is_even(lines: list[Line]) -> bool:
    """Whether a separator cuts every line into the same number of columns, more than one."""
    return len(lines[0][1]) > 1 and len({len(row) for _, row in lines}) == 1


def _lines(text: str, path: Path, known: Collection[str], *, quoted_tabs: bool) -> list[Line]:
    """The cells of every line, cut at the separator that its ending or its content names."""
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # Excel's own word for it
        return [(number + 1, row) for number, row in _cut(rest, first.strip()[4], quoted_tabs)]
    usual = "," if path.suffix.lower() == ".csv" else "\t"
    order = [usual, *(separator for separator in SEPARATORS if separator != usual)]
    for separator in order:
        header = _cut(first, separator, quoted_tabs)
        cells = header[0][1] if header else []
        if len(cells) > 1 and any(cell.strip().casefold() in known for cell in cells):
            return _cut(text, separator, quoted_tabs)
    lines = _cut(text, usual, quoted_tabs)
    if len(lines[0][1]) == 1:  # no header, and not the usual separator: one that cuts every line alike
        for separator in order[1:]:
            other = _cut(text, separator, quoted_tabs)
            if len(other[0][1]) == 2 and all(len(row) == 2 for _, row in other):
                return other
    return lines


def _cut(text: str, separator: str, quoted_tabs: bool, *, first_lines: bool = False) -> list[Line]:
    """The cells of every row with its last line, or with its first."""
    if separator == "\t" and not quoted_tabs:
        return [(n, line.rstrip("\r").split("\t")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        lines: list[Line] = []
        before = 0
        for row in reader:
            if row:
                lines.append((before + 1 if first_lines else reader.line_num, row))
            before = reader.line_num
        return lines
    except csv.Error as error:
        raise UserError(f"line {reader.line_num} of the table can't be read: {error}") from error
