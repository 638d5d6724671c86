"""Interactive figures of milestone pages: what one can change on each, and the data that its script gets."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Interactive:
    """One interactive figure.

    Attributes:
        script: file in this folder, without ``.js``.
        title: heading above the figure.
        task: what to do with it.
        notice: what to look for.
    """

    script: str
    title: str
    task: str
    notice: str

    def data(self) -> Any:
        """What the script gets; None for a figure that computes everything itself."""
        maker = DATA.get(self.script)
        return None if maker is None else maker()


DATA: dict[str, Callable[[], Any]] = {}
"""Makers of the data that some scripts need, by script."""

FIGURES: dict[str, Interactive] = {
    stem: Interactive(**texts)
    for stem, texts in tomllib.loads(Path(__file__).with_name("figures.toml").read_text(encoding="utf-8")).items()
}
"""Interactive figures by milestone."""
