"""A line plot as an SVG file for README and Markdown pages: drawn as on the pages, in the viewer's scheme."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from underhood.core.figures import Plot
from underhood.ui.svg_figures import draw
from underhood.ui.theme import asset

WIDTH, LEFT, RIGHT, TOP, AREA, FOOT = 760, 56, 190, 66, 320, 54
"""Size of the drawing in pixels, its margins, and the height of the plot area."""

COLOURS = re.compile(r"--([\w-]+): light-dark\(([^,()]+), ([^()]+)\);")
HUE_COLOURS = ("#0063a0 #56b4e9", "#b04a00 #f0964a", "#007553 #2fbf93", "#9b3d73 #e08fbb", "#7a6400 #e0c64a",
               "#5a4fcf #a9a2f5", "#62666d #a4a8ae")  # fmt: skip
"""Light and dark colour of each hue, as on the path's pages."""

STYLE = """
.ground { fill: var(--ground); } text { font: 13px system-ui, sans-serif; fill: var(--soft); }
.title { font-size: 16px; font-weight: 650; fill: var(--ink); } .name { font-weight: 600; fill: var(--hue); }
.end { text-anchor: end; } .mid { text-anchor: middle; }
.rule { stroke: var(--hairline); } .level { stroke: var(--soft); stroke-dasharray: 4 3; }
.line { fill: none; stroke: var(--hue); stroke-width: 2; } .spots { fill: var(--hue); }
"""


def plot_svg(plot: Plot) -> str:
    """The plot as an SVG document.

    Raises:
        ValueError: a plot of points or bars.
    """
    if plot.kind != "line":
        raise ValueError(f"only plots of lines are drawn as files, got {plot.kind}")
    drawn = draw(plot)
    height = TOP + AREA + FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(drawn["description"])}">',
        f"<style>{_style()}</style>",
        '<rect class="ground" width="100%" height="100%" rx="6"/>',
        f'<text class="title" x="16" y="28">{escape(plot.title)}</text>',
        f'<text x="16" y="50">{escape(plot.y)}</text>',
    ]
    for at, words in drawn["y_ticks"]:
        lines.append(f'<path class="rule" d="M{LEFT} {_y(at)}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text class="end" x="{LEFT - 8}" y="{_y(at) + 4}">{escape(words)}</text>')
    for at, words in drawn["x_ticks"]:
        lines.append(f'<text class="mid" x="{_x(at)}" y="{TOP + AREA + 20}">{escape(words)}</text>')
    lines.append(f'<text class="mid" x="{_x(50)}" y="{TOP + AREA + 42}">{escape(plot.x)}</text>')
    for level in drawn["levels"]:
        lines.append(f'<path class="level" d="M{LEFT} {_y(level["at"])}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT + 4}" y="{_y(level["at"]) - 5}">{escape(level["words"])}</text>')
    for line in drawn["lines"]:
        lines += _line(line)
    for end in drawn["ends"]:
        name = escape(end["name"])
        lines.append(
            f'<text class="name hue-{end["hue"]}" x="{WIDTH - RIGHT + 12}" y="{_y(end["at"]) + 4}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _line(line: dict[str, Any]) -> list[str]:
    points = [(_x(float(x)), _y(float(y))) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", line["path"])]
    path = "L".join(f"{x} {y}" for x, y in points)
    spots = "".join(f'<circle class="spots" cx="{x}" cy="{y}" r="3"/>' for x, y in points)
    return [f'<g class="hue-{line["hue"]}"><path class="line" d="M{path}"/>{spots}</g>'] if points else []


def _x(percent: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * percent / 100, 1)


def _y(percent: float) -> float:
    """From percent of the area, counted from its upper edge."""
    return round(TOP + AREA * percent / 100, 1)


def _style() -> str:
    used = ("ground", "ink", "soft", "hairline")
    colours = [(name, light, dark) for name, light, dark in COLOURS.findall(asset("tokens.css")) if name in used]
    colours += [(f"hue-{number}", *pair.split()) for number, pair in enumerate(HUE_COLOURS)]
    light = " ".join(f"--{name}: {value};" for name, value, _ in colours)
    dark = " ".join(f"--{name}: {value};" for name, _, value in colours)
    hues = " ".join(f".hue-{number} {{ --hue: var(--hue-{number}); }}" for number in range(len(HUE_COLOURS)))
    return f"svg {{ {light} }}\n@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}\n{hues}{STYLE}"
