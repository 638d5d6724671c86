"""Labelled texts for classification, from tables: TSV, CSV, JSON or Parquet.

Columns are found by name (``text`` and ``label`` or their usual synonyms). A table without a header has two columns;
the one with fewer different values is the label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.data.record_files import json_records, parquet_rows
from underhood.data.tables import table_rows

SUPPORTED = (".tsv", ".csv", ".txt", ".jsonl", ".json", ".parquet")
TEXT_NAMES = ("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "question", "title")
BETWEEN = "\t"
"""Between the two texts of a pair, as in a line of a TSV file."""

LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "intent", "topic", "y")


@dataclass(frozen=True)
class Labelled:
    """One text and its label.

    Attributes:
        text: the text, or the two texts of a pair with `BETWEEN` them.
        source: file and line.
    """

    text: str
    label: str
    source: str


def read_labelled(
    path: Path, *, text: str | None = None, label: str | None = None, second: str | None = None
) -> list[Labelled]:
    """All labelled texts of a file.

    Args:
        text, label: the columns' names, if not the usual ones.
        second: the column of a pair's second text (a hypothesis, an answer, a paraphrase); none for single texts.

    Raises:
        UserError: no such file or column, a line without one of the two (which is named), or an unknown ending.
    """
    kind = path.suffix.lower()
    if kind not in SUPPORTED:
        raise UserError(
            f"can't read labelled texts from {path}", expected=" or ".join(SUPPORTED), got=kind or "no ending"
        )
    if kind in (".jsonl", ".json"):
        rows = list(_json_objects(path))
    elif kind == ".parquet":
        rows = list(parquet_rows(path))
    else:
        named = (name.casefold() for name in (text, label, second) if name)
        rows = table_rows(path, {*TEXT_NAMES, *LABEL_NAMES, *named})
    if not rows:
        raise UserError(f"{path} is empty", expected="labelled texts")
    first = rows[0][1]
    names = [str(name) for name in first]
    text_name, label_name = (
        _column(path, names, text, TEXT_NAMES, "text"),
        _column(path, names, label, LABEL_NAMES, "label"),
    )
    columns = [text_name] if second is None else [text_name, _column(path, names, second, (), "second text")]
    if len(set(columns)) < len(columns):
        raise UserError(f"both texts of a pair come from the column {text_name!r}", fix="Name the first, too")
    examples = []
    for where, record in rows:
        texts, marked = [record.get(name) for name in columns], record.get(label_name)
        for name, content in zip(columns, texts, strict=True):
            if not isinstance(content, str) or not content.strip():
                raise UserError(f"{where} has no text in {name!r}", got=repr(content))
        if marked is None or not str(marked).strip():
            raise UserError(f"{where} has no label in {label_name!r}", got=repr(marked))
        joined = BETWEEN.join(str(content).replace(BETWEEN, " ").strip() for content in texts)
        examples.append(Labelled(joined, str(marked).strip(), where.replace(str(path), path.name, 1)))
    return examples


def split_labelled(examples: Sequence[Labelled], *, test: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Training and test set, drawn at random within each label; equal texts stay together.

    Raises:
        UserError: fewer than two labels, or a part that would be empty.
    """
    labels = sorted({example.label for example in examples})
    if len(labels) < 2:
        raise UserError(
            "there is nothing to tell apart", expected="at least two labels", got=", ".join(labels) or "none"
        )
    draw = random.Random(seed)
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    seen: dict[str, int] = {}
    for label in labels:
        mine = [example for example in examples if example.label == label]
        draw.shuffle(mine)
        wanted = round(test * len(mine))
        for number, example in enumerate(mine):
            share = seen.setdefault(" ".join(example.text.split()).casefold(), int(number < wanted))
            parts[share].append(example)
    if not all(parts):
        raise UserError("too few examples to hold some out", got=f"{len(examples)}")
    draw.shuffle(parts[0])
    return parts


def _json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in json_records(path):
        if not isinstance(record, dict):
            raise UserError(f"{where} is not a JSON object", expected='e.g. {"text": "…", "label": "…"}')
        yield where, record


def _column(path: Path, names: Sequence[str], given: str | None, usual: Sequence[str], noun: str) -> str:
    if given is not None:
        if given in names:
            return given
        near = nearest(given, names)
        fix = f"Did you mean {near!r}?" if near else f"It has: {', '.join(names)}"
        raise UserError(f"{path} has no column {given!r}", fix=fix)
    folded = {name.casefold(): name for name in names}
    column = next((folded[name] for name in usual if name in folded), None)
    if column is None:
        raise UserError(
            f"{path} has no column that is known to hold the {noun}",
            expected=f"one of {', '.join(usual)}",
            got=", ".join(names),
            fix=f"Name it with --{noun}-column",
        )
    return column
