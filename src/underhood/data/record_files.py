"""JSON lines and Parquet files as records, each with its position in words for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.files import decode, read_bytes


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The value of every line that is not blank, e.g. ``("a.jsonl line 3", {...})``.

    Raises:
        UserError: no such file, an empty one, or a line that is not JSON (it is named).
    """
    for number, line in enumerate(decode(read_bytes(path), path).split("\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{where} is not JSON ({error.msg} at column {error.colno})", fix="Each line is one JSON object"
                ) from None


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row, e.g. ``("a.parquet row 3", {...})``.

    Raises:
        UserError: no such file, an empty one, or not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_bytes(path)  # a missing or empty file, in our words
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", record
    except (pa.ArrowException, OSError) as error:
        short = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is not a readable Parquet file ({short})") from error
