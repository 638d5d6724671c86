"""Small pictures of a result in a terminal: lines and points in braille dots, bars, tables and texts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich.console import Console

from underhood.core.figures import Figure, Frames, Grid, Heat, Plot, Texts
from underhood.ui.axes import Axis, axis
from underhood.ui.formatting import compact
from underhood.ui.terminal import table

ROWS = 9
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character, by row and column of its eight dots."""
SHADES = " ░▒▓█"
WIDEST_HEAT = 24


def chart(out: Console, figure: Figure) -> None:
    """Prints one figure in at most 80 columns."""
    out.print()
    out.print(figure.title, style="bold")
    if isinstance(figure, Frames):
        label, plot = figure.frames[-1]
        out.print(f"{figure.control}: {label} (the page has all {len(figure.frames)})", style="dim")
        _plot(out, plot)
    elif isinstance(figure, Plot):
        _plot(out, figure)
    elif isinstance(figure, Grid):
        rows = [[compact(cell) if isinstance(cell, (int, float)) else cell for cell in row] for row in figure.rows]
        out.print(table(figure.head, rows))
    elif isinstance(figure, Texts):
        for label, text in figure.texts:
            out.print(label, style="dim")
            for line in textwrap.wrap(text[:300], out.width - 2) or [""]:
                out.print(f"  {line}")
    else:
        _heat(out, figure)
    if figure.note:
        out.print(textwrap.fill(figure.note, out.width), style="dim")


def _plot(out: Console, plot: Plot) -> None:
    if plot.kind == "bars":
        _bars(out, plot)
        return
    x = axis([value for series in plot.series for value in series.x], plot.log_x, pad=0.0)
    y = axis([value for series in plot.series for value in series.y], plot.log_y)
    left = max(len(compact(y.high)), len(compact(y.low)))
    width = out.width - left - 2
    for row, line in enumerate(_dots(plot, x, y, width)):
        label = compact(y.high) if row == 0 else compact(y.low) if row == ROWS - 1 else ""
        out.print(f"{label:>{left}} {line}".rstrip())
    ends = f"{compact(x.low)}{compact(x.high):>{max(width - len(compact(x.low)), 1)}}"
    out.print(f"{'':{left}} {ends}")
    out.print(f"{'':{left}} {plot.x} → {plot.y}", style="dim")
    for series in plot.series:
        if series.y:
            paper = " (paper)" if series.paper else ""
            out.print(f"  {series.name}{paper}: {compact(series.y[0])} … {compact(series.y[-1])}")


def _dots(plot: Plot, x: Axis, y: Axis, width: int) -> list[str]:
    cells = [[0] * width for _ in range(ROWS)]

    def mark(across: float, up: float) -> None:
        column = round(across / 100 * (2 * width - 1))
        row = round((100 - up) / 100 * (4 * ROWS - 1))
        if 0 <= column < 2 * width and 0 <= row < 4 * ROWS:
            cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]

    for series in plot.series:
        points = [(x.at(a), y.at(b)) for a, b in zip(series.x, series.y, strict=True) if math.isfinite(b)]
        for index, (a, b) in enumerate(points):
            mark(a, b)
            if plot.kind == "line" and index:
                before = points[index - 1]
                steps = int(max(abs(a - before[0]) * width / 50, abs(b - before[1]) * ROWS / 25)) + 1
                for step in range(steps):
                    share = step / steps
                    mark(before[0] + share * (a - before[0]), before[1] + share * (b - before[1]))
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in cells]


def _bars(out: Console, plot: Plot) -> None:
    values = [value for series in plot.series for value in series.y]
    scale = axis(values, plot.log_y, pad=0.0, zero=True)
    names = [*plot.names] or [compact(position) for position in plot.series[0].x]
    words = [f"{name}{', ' + series.name if len(plot.series) > 1 else ''}" for name in names for series in plot.series]
    left = min(max(map(len, words), default=0), 36)
    room = out.width - left - 12
    # A logarithmic scale has no zero: its bars begin at the left.
    origin = 0.0 if plot.log_y else scale.at(0.0)
    for position, name in enumerate(names):
        for series in plot.series:
            if position not in series.x:
                continue
            value = series.y[series.x.index(position)]
            label = f"{name}{', ' + series.name if len(plot.series) > 1 else ''}"[:left]
            bar = _bar(origin, scale.at(value), room, "░" if series.paper else "█")
            out.print(f"{label:<{left}} {bar} {compact(value)}")
    out.print(plot.y, style="dim")


def _bar(origin: float, end: float, room: int, ink: str) -> str:
    """A bar from the position of zero to that of the value, both in percent; a value of zero has a thin line."""
    if not math.isfinite(end):
        return ""
    start, stop = sorted((round(origin / 100 * room), round(end / 100 * room)))
    return " " * start + (ink * (stop - start) or "▏")


def _heat(out: Console, heat: Heat) -> None:
    if len(heat.columns) > WIDEST_HEAT:
        out.print("(too wide for a terminal; the page shows it)", style="dim")
        return
    flat = [abs(value) if heat.signed else value for row in heat.values for value in row if math.isfinite(value)]
    low, high = (0.0, max(flat, default=1.0)) if heat.signed else (min(flat, default=0.0), max(flat, default=1.0))
    for name, row in zip(heat.rows, heat.values, strict=True):
        out.print(f"{name[:12]:>12} " + "".join(_shade(value, low, high, heat.signed) for value in row))


def _shade(value: float, low: float, high: float, signed: bool) -> str:
    size = abs(value) if signed else value
    share = (size - low) / ((high - low) or 1.0) if math.isfinite(size) else 0.0
    shade = SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]
    return shade + ("-" if signed and value < 0 and shade != " " else shade)


def charts(out: Console, figures: Sequence[Figure]) -> None:
    """Prints all of them."""
    for figure in figures:
        chart(out, figure)
