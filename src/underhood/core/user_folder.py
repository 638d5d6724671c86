"""The user's data folder: what a user measures or says is kept here, not in the current folder or in the package."""

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
