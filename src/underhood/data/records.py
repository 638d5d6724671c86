"""Records with several fields (test sets), from a local file or the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.files import decode, read_bytes

Record = dict[str, Any]


def read_records(path: Path, *, limit: int | None = None) -> list[Record]:
    """The records of a ``.jsonl`` (one object per line) or ``.parquet`` file, the first `limit` of them.

    Raises:
        UserError: no such file, another kind of file, or a line that is not a JSON object (it is named).
    """
    if path.suffix == ".jsonl":
        return list(islice(_jsonl(path), limit))
    if path.suffix == ".parquet":
        return list(islice(_parquet(path), limit))
    raise UserError(f"can't read {path}: unsupported file type {path.suffix!r}", expected=".jsonl or .parquet")


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


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(decode(read_bytes(path), path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {number} is not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path} line {number} is not a JSON object", got=line[:40])
        yield record


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())[:100]})") from error
