"""Records with several fields (test sets), from a local file or the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.record_files import json_records, parquet_rows

Record = dict[str, Any]


def read_records(path: Path, *, limit: int | None = None) -> list[Record]:
    """The records of a ``.jsonl``, ``.json`` (lines or an array) or ``.parquet`` file, the first `limit` of them.

    Raises:
        UserError: no such file, another kind of file, or a line that is not a JSON object (it is named).
    """
    if path.suffix in (".jsonl", ".json"):
        return list(islice(_json_objects(path), limit))
    if path.suffix == ".parquet":
        return [record for _, record in islice(parquet_rows(path), limit)]
    raise UserError(f"can't read {path}: unsupported file type {path.suffix!r}", expected=".jsonl, .json or .parquet")


def hub_records(spec: str, *, split: str, limit: int | None = None) -> list[Record]:
    """The records of a data set on the Hugging Face Hub, named as ``OWNER/NAME`` or ``OWNER/NAME:CONFIG``.

    Raises:
        UserError: no such data set, config or split, no access, no network.
    """
    from underhood.data.hub import hub_files

    records: list[Record] = []
    for path in hub_files(spec, split=split):
        records += read_records(path, limit=None if limit is None else limit - len(records))
        if limit is not None and len(records) >= limit:
            break  # before the next file is asked for, and so downloaded
    return records


def _json_objects(path: Path) -> Iterator[Record]:
    for where, record in json_records(path):
        if not isinstance(record, dict):
            raise UserError(f"{where} is not a JSON object", got=repr(record)[:40])
        yield record
