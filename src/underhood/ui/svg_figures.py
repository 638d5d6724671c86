"""SVG figures: what a template needs to draw a `core.figures.Figure`, with positions in percent of the plot area.

Lines are SVG stretched over the area and all words are HTML beside it, so text keeps its size on a phone and
everything shows without JavaScript; the page's script only reads values off.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from underhood.core.figures import Figure, Frames, Grid, Heat, Plot, Series, Texts
from underhood.ui.axes import Axis, axis
from underhood.ui.formatting import compact

HUES = 7
"""Colours in turn; dash patterns are the second cue."""
LABEL_LINE, LABEL_GAP, LABEL_WIDTH = 4.9, 2.6, 18
"""Height of a line of a label and the room between two labels, in percent of the area's height; letters in a line."""
LABEL_BELOW = 10
"""A level this near the area's upper edge, in percent, has its label below."""


def draw(figure: Figure) -> dict[str, Any]:
    """A figure for the template: ``kind`` and what that kind needs."""
    header = {"title": figure.title, "note": figure.note}
    if isinstance(figure, Plot):
        return header | (_bars(figure) if figure.kind == "bars" else _plot(figure, *_axes([figure])))
    if isinstance(figure, Frames):
        plots = [plot for _, plot in figure.frames]
        if plots and plots[0].kind == "bars":
            drawn = [_bars(plot) for plot in plots]
        else:
            drawn = [_plot(plot, *_axes(plots)) for plot in plots]
        frames = [{"label": label} | frame for (label, _), frame in zip(figure.frames, drawn, strict=True)]
        return header | {"kind": "frames", "control": figure.control, "frames": frames}
    if isinstance(figure, Heat):
        return header | _heat(figure)
    if isinstance(figure, Grid):
        rows = [[compact(cell) if isinstance(cell, (int, float)) else cell for cell in row] for row in figure.rows]
        right = [bool(figure.rows) and all(isinstance(row[i], (int, float)) for row in figure.rows)
                 for i in range(len(figure.head))]  # fmt: skip
        return header | {"kind": "grid", "head": figure.head, "rows": rows, "right": right}
    assert isinstance(figure, Texts)
    return header | {"kind": "texts", "texts": figure.texts}


def _axes(plots: Sequence[Plot]) -> tuple[Axis, Axis]:
    """Axes that hold every frame alike."""
    xs = [x for plot in plots for series in plot.series for x in series.x]
    ys = [y for plot in plots for series in plot.series for y in (*series.y, *series.low, *series.high)]
    ys += [level for plot in plots for level, _ in plot.levels]
    first = plots[0]
    return axis(xs, first.log_x, pad=0.0 if first.kind == "line" else 0.04), axis(ys, first.log_y)


def _plot(plot: Plot, x: Axis, y: Axis) -> dict[str, Any]:
    lines = [_line(series, index, plot.kind, x, y) for index, series in enumerate(plot.series)]
    levels = [
        {"at": (at := round(100 - y.at(value), 2)), "words": words, "below": at < LABEL_BELOW}
        for value, words in plot.levels
    ]
    places = sorted({value for series in plot.series for value in series.x})
    words = [f"{plot.x} {compact(position)}" for position in places]
    read = {
        "x": [x.at(position) for position in places],
        "words": words,
        "series": [
            {"name": series.name, "hue": index % HUES} | _values(series, places, y)
            for index, series in enumerate(plot.series)
        ],
    }
    return {
        "kind": "plot",
        "points": plot.kind == "points",
        "x": plot.x,
        "y": plot.y,
        "x_ticks": x.ticks(),
        "y_ticks": [(round(100 - at, 2), words) for at, words in y.ticks()],
        "lines": lines,
        "ends": _ends(lines),
        "levels": levels,
        "read": read,
        "description": _description(plot),
    }


def _values(series: Series, places: Sequence[float], y: Axis) -> dict[str, list[Any]]:
    known = dict(
        zip(series.x, zip(series.y, series.low or series.y, series.high or series.y, strict=True), strict=True)
    )
    tops: list[float | None] = []
    words: list[str | None] = []
    for position in places:
        known_values = known.get(position)
        tops.append(None if known_values is None else round(100 - y.at(known_values[0]), 2))
        if known_values is None:
            words.append(None)
        elif series.low:
            words.append(f"{compact(known_values[0])} ({compact(known_values[1])} to {compact(known_values[2])})")
        else:
            words.append(compact(known_values[0]))
    return {"y": tops, "words": words}


def _line(series: Series, index: int, kind: str, x: Axis, y: Axis) -> dict[str, Any]:
    points = [(x.at(a), round(100 - y.at(b), 2)) for a, b in zip(series.x, series.y, strict=True) if math.isfinite(b)]
    path = "".join(f"{'M' if not n or kind == 'points' else 'L'}{a} {b}" + ("h0" if kind == "points" else "")
                   for n, (a, b) in enumerate(points))  # fmt: skip
    band = ""
    if series.low and kind == "line":
        there = [f"{x.at(a)} {round(100 - y.at(b), 2)}" for a, b in zip(series.x, series.high, strict=True)]
        back = [f"{x.at(a)} {round(100 - y.at(b), 2)}" for a, b in zip(series.x, series.low, strict=True)]
        band = "M" + "L".join(there + back[::-1]) + "Z"
    dots = "".join(f"M{a} {b}h0" for a, b in points) if kind == "line" and len(points) <= 24 else ""
    whiskers = ""
    if series.low and kind == "points":
        whiskers = "".join(
            f"M{x.at(a)} {round(100 - y.at(low), 2)}V{round(100 - y.at(high), 2)}"
            for a, low, high in zip(series.x, series.low, series.high, strict=True)
        )
    end = max(points, default=(0.0, 50.0))[1]
    return {
        "name": series.name,
        "hue": index % HUES,
        "dash": series.paper,
        "path": path,
        "band": band,
        "dots": dots,
        "whiskers": whiskers,
        "end": end,
        "last": compact(series.y[-1]) if series.y else "",
    }


def _ends(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labels at the lines' ends, none on another and none outside the area, else as near to their lines as can be.

    Taking the height of the labels above from each label turns "apart" into "in order"; the nearest ordered values are
    those of isotonic regression, by pooling neighbours that are out of order into their mean (Ayer et al. 1955), and
    bounds on all of them are kept by cutting at the bounds.
    """
    labels = sorted(({"at": line["end"], "name": line["name"], "hue": line["hue"]} for line in lines), key=_at)
    if not labels:
        return []
    heights = [LABEL_GAP + LABEL_LINE * len(textwrap.wrap(label["name"], LABEL_WIDTH)) for label in labels]
    above = [0.0]  # how far each label's middle is below the first one's when they touch
    for upper, lower in itertools.pairwise(heights):
        above.append(above[-1] + (upper + lower) / 2)
    pools: list[list[float]] = []
    for label, offset in zip(labels, above, strict=True):
        pools.append([label["at"] - offset])
        while len(pools) > 1 and sum(pools[-2]) / len(pools[-2]) > sum(pools[-1]) / len(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    ordered = [sum(pool) / len(pool) for pool in pools for _ in pool]
    highest = heights[0] / 2
    lowest = max(highest, 100 - heights[-1] / 2 - above[-1])
    return [
        label | {"at": round(min(max(at, highest), lowest) + offset, 2)}
        for label, at, offset in zip(labels, ordered, above, strict=True)
    ]


def _at(label: dict[str, Any]) -> float:
    return label["at"]


def _bars(plot: Plot) -> dict[str, Any]:
    values = [y for series in plot.series for y in (*series.y, *series.low, *series.high)]
    scale = axis([*values, *(level for level, _ in plot.levels)], plot.log_y, pad=0.02, zero=True)
    start = scale.at(0.0) if not plot.log_y else 0.0
    rows = []
    for position, name in enumerate(plot.names or sorted({x for series in plot.series for x in series.x})):
        bars = []
        for index, series in enumerate(plot.series):
            if position not in series.x:
                continue
            at = series.x.index(position)
            end = scale.at(series.y[at])
            bar = {
                "hue": index % HUES,
                "dash": series.paper,
                "name": series.name,
                "left": min(start, end),
                "width": round(abs(end - start), 2),
                "words": compact(series.y[at]),
            }
            if series.low:
                low, high = scale.at(series.low[at]), scale.at(series.high[at])
                bar |= {"low": low, "spread": round(high - low, 2)}
            bars.append(bar)
        rows.append({"name": name if isinstance(name, str) else compact(name), "bars": bars})
    return {
        "kind": "bars",
        "y": plot.y,
        "x": plot.x,
        "rows": rows,
        "names": [(series.name, index % HUES, series.paper) for index, series in enumerate(plot.series)],
        "ticks": scale.ticks(),
        "levels": [{"at": scale.at(value), "words": words} for value, words in plot.levels],
    }


def _heat(heat: Heat) -> dict[str, Any]:
    flat = [value for row in heat.values for value in row if math.isfinite(value)]
    most = max((abs(value) for value in flat), default=1.0) or 1.0
    low, high = (-most, most) if heat.signed else (min(flat, default=0.0), max(flat, default=1.0))
    span = (high - low) or 1.0
    cells = [
        [
            {"share": round(abs(value) / most if heat.signed else (value - low) / span, 3), "negative": value < 0,
             "words": compact(value)}
            for value in row
        ]
        for row in heat.values
    ]  # fmt: skip
    return {
        "kind": "heat",
        "columns": heat.columns,
        "rows": list(zip(heat.rows, cells, strict=True)),
        "signed": heat.signed,
        "unit": heat.unit,
        "low": compact(low),
        "high": compact(high),
        "shown": len(heat.columns) <= 12,
    }


def _description(plot: Plot) -> str:
    """The picture in words, for those who can't see it."""
    sentences = [
        f"{series.name}: {compact(series.y[0])} at {compact(series.x[0])}, "
        f"{compact(series.y[-1])} at {compact(series.x[-1])}"
        for series in plot.series
        if series.y
    ]
    return f"{plot.title}. {plot.y} against {plot.x}. " + "; ".join(sentences) + "."
