"""The user's folders: data (what a user measures or says), settings, and a cache of what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "UNDERHOOD_HOME"
"""The environment variable that names the folder."""


def user_folder() -> Path:
    """``$UNDERHOOD_HOME``, or ``underhood`` in the data folder of the XDG Base Directory Specification.

    That is ``$XDG_DATA_HOME`` or, left out, ``~/.local/share``. A relative XDG path counts as left out, as the
    specification says. The folder need not exist.
    """
    named = os.environ.get(HOME)
    if named:
        return Path(named).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or ".")
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "underhood"


def user_cache() -> Path:
    """The folder for files that can be made or fetched again: ``$XDG_CACHE_HOME/underhood``, or the system's own."""
    return _folder("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", ".cache")


def user_config() -> Path:
    """The folder for the user's settings: ``$XDG_CONFIG_HOME/underhood``, or the system's own."""
    return _folder("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", ".config")


def _folder(variable: str, below_home: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / below_home) / "underhood"
