"""JSON files of tokenizers, read and written with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.text_files import read_text


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by the JSON of `value` in one move; see `core.files.write_text`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The file's JSON value.

    Raises:
        UserError: the file is missing, unreadable, not text or not JSON (with line and column).
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} column {error.colno} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be a tokenizer") from error
