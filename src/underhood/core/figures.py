"""Figures as data: a milestone says what to show, the terminal and the pages each draw it their way.

A result file holds them as JSON, so that a page can be drawn without measuring anything again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Series:
    """One line, or one row of points or bars.

    Attributes:
        name: the words at its end.
        low, high: the interval around each y (95 % over seeds), if measured.
        paper: values that a source prints; drawn dashed, never mistaken for a measurement.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    paper: bool = False

    def __post_init__(self) -> None:
        for name in ("x", "y", "low", "high"):  # NumPy's numbers too, of which JSON knows nothing
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        assert len(self.x) == len(self.y), f"{self.name}: {len(self.x)} x values, {len(self.y)} y values"
        assert len(self.low) == len(self.high), f"{self.name}: an interval has two ends"
        assert len(self.low) in (0, len(self.y)), f"{self.name}: an interval for every value or for none"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Quantities against one another.

    Attributes:
        title: what is seen, as a sentence if it can be.
        x, y: what the axes mean, with units.
        kind: ``line`` for a function, ``points`` for a cloud, ``bars`` for categories (`names` has one per x 0, 1, 2…).
        levels: horizontal marks, each a value and its words.
        note: how to read it.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    kind: Literal["line", "points", "bars"] = "line"
    log_x: bool = False
    log_y: bool = False
    names: tuple[str, ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Several plots of the same axes, one shown at a time and chosen by a slider: ``("order 3", Plot(…))``."""

    title: str
    control: str
    frames: tuple[tuple[str, Plot], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """A matrix as colours: rows from the top. `signed` centres the scale at zero."""

    title: str
    values: tuple[tuple[float, ...], ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    unit: str = ""
    signed: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A small table of words and numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts side by side, such as samples of several models: ``("third order", "IN NO IST LAT …")``."""

    title: str
    texts: tuple[tuple[str, str], ...]
    note: str = ""


Figure = Plot | Frames | Heat | Grid | Texts
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in (Plot, Frames, Heat, Grid, Texts)}


def figure_to_json(figure: Figure) -> dict[str, Any]:
    """A figure as JSON values; ``figure`` names its kind."""
    return {"figure": type(figure).__name__.lower()} | dataclasses.asdict(figure)


def figure_from_json(data: dict[str, Any]) -> Figure:
    """The figure that `figure_to_json` wrote (KeyError or TypeError if it is none)."""
    fields = {key: _tuples(value) for key, value in data.items() if key != "figure"}
    kind = _KINDS[data["figure"]]
    if kind is Plot:
        return _plot(fields)
    if kind is Frames:
        fields["frames"] = tuple((label, _plot(dict(plot))) for label, plot in fields["frames"])
    return kind(**fields)


def _plot(fields: dict[str, Any]) -> Plot:
    return Plot(**{**fields, "series": tuple(Series(**series) for series in fields["series"])})


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
