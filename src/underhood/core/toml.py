"""TOML files: reading with errors a user can act on, and text to write."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from underhood.core.errors import UserError
from underhood.core.text_files import read_text


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UserError: there is no such file, or it is not TOML (the message has the line).
    """
    if not path.exists():
        raise UserError(f"there is no file {path}")
    if path.is_dir():
        raise UserError(f"{path} is a folder", expected="a TOML file")
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def toml_text(table: Mapping[str, Any]) -> str:
    """A table as TOML text that `tomllib` reads back to the same value; None values are left out.

    Raises:
        UserError: a text that TOML can't hold: the name of a file that is not UTF-8.
        TypeError: a value that TOML has no form for (a programming error).
    """
    text = tomli_w.dumps(_without_none(table))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[text.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
        raise UserError(f"settings can't hold a name that is not UTF-8: {line}", fix="Rename the file") from None
    return text


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, (list, tuple)) else value
