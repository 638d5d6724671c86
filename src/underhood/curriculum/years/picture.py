"""The comparison as an SVG file for README and Markdown pages: a dot with its interval per model, in order of years.

The colours follow the viewer's scheme.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from underhood.ui.axes import axis
from underhood.ui.formatting import decimal

WIDTH, LEFT, RIGHT, TOP, ROW, FOOT = 760, 236, 84, 34, 28, 54
STYLE = """
svg { --ground: #fcfcfb; --ink: #1c1c1f; --soft: #5f5f66; --rule: #e4e4e1; --dot: #0f766e; --mark: #b45309; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #141416; --ink: #e8e8e6; --soft: #a3a3aa; --rule: #303034; --dot: #2dd4bf; --mark: #fbbf24; }
}
.ground { fill: var(--ground); } text { font: 14px system-ui, sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); } .small { font-size: 12px; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.rule { stroke: var(--rule); } .whisker { stroke: var(--dot); stroke-width: 2; } .dot { fill: var(--dot); }
.way { stroke: var(--dot); stroke-width: 1; opacity: .45; fill: none; }
.mark { stroke: var(--mark); stroke-dasharray: 4 3; } .mark-words { fill: var(--mark); }
"""


def picture(result: dict[str, Any]) -> str:
    """The drawing of a result."""
    models = result["models"]
    packer, packed = min(result["compressors"].items(), key=lambda entry: entry[1])
    shown = [value for model in models for value in (model["mean"], model["low"], model["high"]) if value is not None]
    scale = axis([*shown, packed], False)
    height = TOP + ROW * len(models) + FOOT
    bottom = TOP + ROW * len(models)

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * scale.at(value) / 100, 1)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(description(result))}">',
        f"<style>{STYLE}</style>",
        '<rect class="ground" width="100%" height="100%" rx="6"/>',
    ]
    for at, words in scale.ticks():
        x = round(LEFT + (WIDTH - LEFT - RIGHT) * at / 100, 1)
        lines.append(f'<path class="rule" d="M{x} {TOP - 8}V{bottom}"/>')
        lines.append(f'<text class="soft small mid" x="{x}" y="{bottom + 18}">{escape(words)}</text>')
    lines.append(
        f'<text class="soft small mid" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 38}">'
        "bits per byte of unseen documents: less is better</text>"
    )
    lines.append(f'<path class="mark" d="M{across(packed)} {TOP - 8}V{bottom}"/>')
    lines.append(f'<text class="mark-words small mid" x="{across(packed)}" y="{TOP - 14}">{escape(packer)}</text>')
    points = [(across(model["mean"]), TOP + ROW * row + ROW / 2) for row, model in enumerate(models)]
    lines.append('<path class="way" d="M' + "L".join(f"{x} {y}" for x, y in points) + '"/>')
    for (x, y), model in zip(points, models, strict=True):
        lines.append(f'<text class="soft small" x="16" y="{y + 4}">{model["year"]}</text>')
        lines.append(f'<text x="56" y="{y + 5}">{escape(model["name"])}</text>')
        if model["low"] is not None and math.isfinite(model["low"]):
            lines.append(f'<path class="whisker" d="M{across(model["low"])} {y}H{across(model["high"])}"/>')
        lines.append(f'<circle class="dot" cx="{x}" cy="{y}" r="5"/>')
        lines.append(f'<text class="end" x="{WIDTH - 16}" y="{y + 5}">{decimal(model["mean"], 2)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def description(result: dict[str, Any]) -> str:
    """The picture in words."""
    entries = (f"{model['year']} {model['name']} {decimal(model['mean'], 2)}" for model in result["models"])
    return "Bits per byte of unseen documents: " + ", ".join(entries)
