"""The user's folders for what every run of the program shares: a cache of what can be made again, and settings."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder for files that can be made or fetched again: ``$XDG_CACHE_HOME/underhood``, or the system's own."""
    return _folder("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", ".cache")


def user_config() -> Path:
    """The folder for the user's settings: ``$XDG_CONFIG_HOME/underhood``, or the system's own."""
    return _folder("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", ".config")


def _folder(variable: str, below_home: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / below_home) / "underhood"
