"""Parallel text: pairs of a source and its translation, from tables and JSON lines.

A table needs no header: its first column is then the source, its second the target, and further columns (the authors,
in the files of manythings.org) are left alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.record_files import json_records, parquet_rows
from underhood.data.tables import cut_table

SUPPORTED = (".tsv", ".csv", ".txt", ".jsonl", ".json", ".parquet")
SOURCE_NAMES = ("source", "src", "input", "from", "question", "text")
TARGET_NAMES = ("target", "tgt", "translation", "output", "to", "answer")


@dataclass(frozen=True)
class Translation:
    """A source, its target, and the file and line that they are from."""

    source: str
    target: str
    where: str = ""


def read_translations(path: Path, *, source: str | None = None, target: str | None = None) -> list[Translation]:
    """All pairs of a file.

    Args:
        source, target: the columns' names, if they are not usual ones such as source and target.

    Raises:
        UserError: no such file or column, a line without one of the two (which is named), or an unknown ending.
    """
    kind = path.suffix.lower()
    if kind not in SUPPORTED:
        got = kind or "no ending"
        fix = "Unpack it first" if kind in (".zip", ".gz") else None
        raise UserError(f"can't read pairs from {path}", expected=" or ".join(SUPPORTED), got=got, fix=fix)
    if kind == ".parquet":
        rows: Iterable[tuple[str, Any]] = parquet_rows(path)
    elif kind in (".jsonl", ".json"):
        rows = json_records(path)
    else:
        rows = _table_rows(path, source, target)
    pairs, names = list[Translation](), ("", "")
    for where, record in rows:
        if not isinstance(record, dict):
            raise UserError(f"{where} is not a JSON object", expected='e.g. {"source": "…", "target": "…"}')
        if not pairs:
            columns = [str(name) for name in record]
            names = _column(path, columns, source, SOURCE_NAMES), _column(path, columns, target, TARGET_NAMES)
        texts = [record.get(name) for name in names]
        for name, text in zip(names, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where} has no text in {name!r}", got=repr(text))
        pairs.append(Translation(str(texts[0]).strip(), str(texts[1]).strip(), where.replace(str(path), path.name, 1)))
    if not pairs:
        raise UserError(f"{path} is empty", expected="a source and a target in every line")
    return pairs


def _table_rows(path: Path, source: str | None, target: str | None) -> Iterable[tuple[str, dict[str, str]]]:
    known = {name.casefold() for name in (*SOURCE_NAMES, *TARGET_NAMES, source or "source", target or "target")}
    lines = cut_table(path, known)
    header = [cell.strip() for cell in lines[0][1]]
    named = len(lines) > 1 and len(header) > 1 and sum(cell.casefold() in known for cell in header) >= 2
    names = header if named else ["source", "target"]
    for number, cells in lines[named:]:
        if len(cells) < 2:
            got = f"{len(cells)} column"
            raise UserError(
                f"{path} line {number} holds no pair", expected="a source and a target, with a tab between", got=got
            )
        yield f"{path} line {number}", dict(zip(names, cells, strict=False))


def _column(path: Path, columns: Sequence[str], given: str | None, usual: Sequence[str]) -> str:
    folded = {name.casefold(): name for name in reversed(columns)}
    for name in [given] if given is not None else usual:
        if name.casefold() in folded:
            return folded[name.casefold()]
    option = "--source-column" if usual is SOURCE_NAMES else "--target-column"
    what = f"no column {given!r}" if given is not None else f"no column called {', '.join(usual[:3])} or the like"
    raise UserError(f"{path} has {what}", got=", ".join(columns), fix=f"Name one by {option}")


@dataclass(frozen=True)
class HeldOutSource:
    """A source that is never trained on, and all translations of it that the data have."""

    source: str
    targets: tuple[str, ...]


def split_translations(
    pairs: Sequence[Translation], *, held_out: float, most: int, seed: int
) -> tuple[list[Translation], list[HeldOutSource]]:
    """Training pairs, and sources that are held out: a share of the different ones, drawn at random.

    All translations of a source are in one of the two, however it is capitalised or spaced.

    Args:
        held_out: the share of the sources.
        most: how many sources at most.

    Raises:
        UserError: too few sources to hold some out.
    """
    groups: dict[str, list[Translation]] = {}
    for pair in pairs:
        groups.setdefault(" ".join(pair.source.split()).casefold(), []).append(pair)
    keys = list(groups)
    random.Random(seed).shuffle(keys)
    count = max(1, min(most, round(held_out * len(keys))))
    if len(keys) < 2 or count >= len(keys):
        raise UserError("too few pairs to hold some out", expected="two different sources or more", got=str(len(keys)))
    test = [
        HeldOutSource(groups[key][0].source, tuple(dict.fromkeys(pair.target for pair in groups[key])))
        for key in keys[:count]
    ]
    return [pair for key in keys[count:] for pair in groups[key]], test
