"""Settings as TOML: read with the standard library, written by these few lines."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.files import write_text

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UserError: there is no such file, or it is not TOML (the message has the line).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder", expected="a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def toml_text(table: Mapping[str, Any], *, prefix: str = "") -> str:
    """A table as TOML text that `tomllib` reads back to the same value; None values are left out.

    Plain values come first, then each sub-table under its own heading.

    Raises:
        TypeError: a value that TOML has no form for (a programming error).
    """
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    text = "".join(f"{_key(key)} = {_value(value)}\n" for key, value in plain.items())
    for key, value in nested.items():
        heading = f"{prefix}{_key(key)}"
        text += f"\n[{heading}]\n" + toml_text(value, prefix=f"{heading}.")
    return text


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """Replaces `path` by `toml_text(table)` in one move.

    Raises:
        UserError: the place can't be written; the old file, if any, is untouched.
    """
    write_text(path, toml_text(table))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".einf") else text + ".0"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return "{" + inner + "}"
    raise TypeError(f"no TOML form for {value!r} ({type(value).__name__})")


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped, and surrogates, which it can't hold.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
