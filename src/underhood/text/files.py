"""Reading and writing the JSON files of this floor: never half a file, and errors that name the file."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Writes `value` under a temporary name in the same folder, then renames: readers see the old file or the new.

    Raises:
        UserError: the folder is missing or read-only, or the disk is full; an older file stays as it was.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a tokenizer should be as readable as anything else the user writes.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """The file's JSON value.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or not JSON (with line and column).
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text", expected="UTF-8 JSON", got=f"byte {error.start}: {error.reason}"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} column {error.colno} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be a tokenizer") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
