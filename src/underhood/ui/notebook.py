"""HTML of objects in a notebook: token strips coloured by probability, conversations, tables of facts, bars, curves.

Each piece is whole by itself: one ``<div>`` with its own small style sheet, no script and no request. Light and dark
follow the system, as on the pages (see ``assets/tokens.css``, from which the colours are read).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from markupsafe import Markup, escape

from underhood.ui.curves import Curve
from underhood.ui.theme import asset
from underhood.ui.visible_bytes import visible

PROBABILITY_BOUNDS = (0.01, 0.1, 0.5, 0.9)
"""Borders between the five colours of a token, as on the chat page; below the first it is underlined too."""

_SCALE = tuple(f"scale-{level}" for level in range(5))
_USED = ("ground", "ink", "soft", "hairline", "hurt", "accent", "track", "part-mixer", *_SCALE)
_STYLE = """
.underhood { color-scheme: light dark; VARIABLES
  background: var(--uh-ground); color: var(--uh-ink); padding: 0.5rem 0.75rem; border: 1px solid var(--uh-hairline);
  border-radius: 6px; font: 14px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; max-width: 60rem; }
.underhood .soft { color: var(--uh-soft); font-size: 12px; }
.underhood p { margin: 0.25rem 0; }
.underhood .strip { overflow-wrap: anywhere; line-height: 2; }
.underhood .token, .underhood code { font: 13px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: none; color: inherit; padding: 0; }
.underhood .token { padding: 2px 1px; border-radius: 3px; margin-right: 1px; white-space: pre-wrap;
  color: var(--uh-ink); }
.underhood .surprise { box-shadow: inset 0 -2px var(--uh-hurt); }
.underhood table { border-collapse: collapse; margin: 0.25rem 0; font-size: 13px; background: none; }
.underhood th, .underhood td { text-align: left; padding: 2px 12px 2px 0; border: 0; background: none; color: inherit;
  vertical-align: top; font-variant-numeric: tabular-nums; }
.underhood th { color: var(--uh-soft); font-weight: 400; }
.underhood td.number { text-align: right; }
.underhood th.up { writing-mode: vertical-rl; padding: 2px; }
.underhood td.heat { background: color-mix(in srgb, var(--uh-scale-4) var(--full), var(--uh-ground)); padding: 2px;
  min-width: 1.75rem; text-align: center; white-space: nowrap; }
.underhood td.heat.negative { background: color-mix(in srgb, var(--uh-part-mixer) var(--full), var(--uh-ground)); }
.underhood .wide { overflow-x: auto; }
.underhood .rail { width: 10rem; }
.underhood .rail i { display: block; height: 10px; margin-top: 6px; background: var(--uh-accent); border-radius: 2px; }
.underhood svg { width: 100%; height: 8rem; border-left: 1px solid var(--uh-hairline); overflow: visible;
  border-bottom: 1px solid var(--uh-hairline); display: block; }
.underhood svg path { fill: none; stroke: var(--uh-accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.underhood svg path.band { fill: var(--uh-track); stroke: none; }
.underhood svg path.held { stroke: var(--uh-hurt); stroke-dasharray: 4 3; }
""" + "".join(f".underhood .l{level} {{ background: var(--uh-scale-{level}); }}\n" for level in range(5))


@lru_cache(maxsize=1)
def _sheet() -> Markup:
    colours = dict(re.findall(r"--([\w-]+): ((?:light-dark\([^)]*\)|[^;]+));", asset("tokens.css")))
    variables = " ".join(f"--uh-{name}: {colours[name]};" for name in _USED)
    return Markup("<style>{}</style>").format(Markup(_STYLE.replace("VARIABLES", variables)))


def framed(*pieces: Markup) -> str:
    """Pieces of HTML as what ``_repr_html_`` returns."""
    return str(Markup('<div class="underhood">{}{}</div>').format(_sheet(), Markup("").join(pieces)))


def probability_level(probability: float) -> int:
    """Which of the five colours a token of this probability has, 0 for the least probable."""
    return sum(probability >= bound for bound in PROBABILITY_BOUNDS)


def share_of_one(probability: float) -> str:
    """A probability in percent with three digits: ``41.3 %``, ``0.0021 %``; never rounded to 0 or 100."""
    percent = 100 * probability
    if 0 < percent < 1e-4:
        return "< 0.0001 %"
    if percent >= 99.95:
        return "100 %" if probability == 1 else "> 99.9 %"
    digits = 1 if percent >= 10 or percent == 0 else 1 - math.floor(math.log10(percent))
    return f"{percent:.{digits}f} %"


def token_strip(tokens: Iterable[tuple[int, bytes, float | None]]) -> Markup:
    """Tokens as inline chips: (id, bytes, probability); without a probability they are grey in turn."""
    chips = []
    for number, (token, raw, probability) in enumerate(tokens):
        shown = visible(raw)
        known = "" if probability is None else f" · {share_of_one(probability)}"
        level = number % 2 if probability is None else probability_level(probability)
        surprise = " surprise" if probability is not None and probability < PROBABILITY_BOUNDS[0] else ""
        title = f"id {token} · {raw.hex(' ')}{known}"
        chips.append(Markup('<span class="token l{}{}" title="{}">{}</span>').format(level, surprise, title, shown))
        if b"\n" in raw:
            chips.append(Markup("<br>"))
    return Markup('<p class="strip">{}</p>').format(Markup("").join(chips))


def probability_key() -> Markup:
    """What the colours of `token_strip` mean."""
    words = ("below 1 %", "to 10 %", "to 50 %", "to 90 %", "90 % and more")
    chips = (Markup('<span class="token l{}">{}</span> ').format(level, word) for level, word in enumerate(words))
    return Markup('<p class="soft">Probability under the model: {}</p>').format(Markup("").join(chips))


def facts_table(title: str, facts: Mapping[str, object]) -> Markup:
    """A heading and named facts."""
    rows = (Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, value) for name, value in facts.items())
    return Markup("<p><b>{}</b></p><table>{}</table>").format(title, Markup("").join(rows))


def data_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table; bytes are shown as code, Markup as it is."""
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in heads)
    body = (Markup("<tr>{}</tr>").format(Markup("").join(map(_cell, row))) for row in rows)
    return Markup("<table><tr>{}</tr>{}</table>").format(head, Markup("").join(body))


def heat_table(
    rows: Sequence[str],
    columns: Sequence[str],
    shares_RC: Sequence[Sequence[float]],
    texts_RC: Sequence[Sequence[str]] | None = None,
) -> Markup:
    """Shares from −1 to 1 as a table, each cell as full of colour as its share; negative ones have another colour.

    Args:
        texts_RC: what the cells say; None means the share in percent, and nothing for zero. A share that is not a
            number has no colour.
    """
    head = Markup("").join(Markup('<th class="up">{}</th>').format(name) for name in columns)
    lines = []
    for number, (name, shares) in enumerate(zip(rows, shares_RC, strict=True)):
        texts = [_percent(share) for share in shares] if texts_RC is None else texts_RC[number]
        cells = Markup("").join(map(_heat_cell, shares, texts))
        lines.append(Markup("<tr><th>{}</th>{}</tr>").format(name, cells))
    return Markup('<div class="wide"><table><tr><th></th>{}</tr>{}</table></div>').format(head, Markup("").join(lines))


def signed_heat_table(
    rows: Sequence[str], columns: Sequence[str], values_RC: Sequence[Sequence[float]], digits: int = 2
) -> Markup:
    """Numbers of either sign as a table; the largest one is full of colour, and each cell says its number."""
    sizes = [abs(value) for values in values_RC for value in values if math.isfinite(value)]
    largest = max(sizes, default=0.0) or 1.0
    texts = [[f"{value:.{digits}f}" if math.isfinite(value) else "" for value in values] for values in values_RC]
    return heat_table(rows, columns, [[value / largest for value in values] for values in values_RC], texts)


def _heat_cell(share: float, text: object) -> Markup:
    full = min(abs(share), 1.0) if math.isfinite(share) else 0.0
    kind = "heat negative" if share < 0 else "heat"
    return Markup('<td class="{}" style="--full:{:.0f}%">{}</td>').format(kind, 100 * full, text)


def _percent(share: float) -> object:
    return (round(100 * share) or "") if math.isfinite(share) else ""


def bar(share: float) -> Markup:
    """A bar of a share of the cell's width."""
    return Markup('<div class="rail"><i style="width:{:.1f}%"></i></div>').format(max(0.5, 100 * share))


def turns(messages: Iterable[Mapping[str, object]]) -> Markup:
    """A conversation: who says what."""
    return data_table(
        ["", ""], ((Markup('<span class="soft">{}</span>').format(m["role"]), _lines(m)) for m in messages)
    )


def curve_chart(curve: Curve) -> Markup:
    """A training curve with the spread of its steps, and held-out values dashed; the numbers are in words below."""
    held = ""
    if len(curve.marks) > 1:
        held = "M" + "L".join(f"{curve.left(step)} {curve.up(value)}" for step, value in curve.marks)
    last = f", held out {curve.short(curve.marks[-1][1])}" if curve.marks else ""
    return Markup(
        '<p><b>{}</b> <span class="soft">{}</span></p>'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="band" d="{}"/><path d="{}"/><path class="held" d="{}"/></svg>'
        '<p class="soft">{} steps; {} at the beginning, {} at the end{}</p>'
    ).format(
        curve.label, curve.title, curve.description, curve.band(), curve.line(), held,
        f"{curve.x[-1]:,}", curve.value(curve.y[0]), curve.value(curve.y[-1]), last,
    )  # fmt: skip


def _cell(value: object) -> Markup:
    if isinstance(value, Markup):
        return Markup("<td>{}</td>").format(value)
    if isinstance(value, bytes):
        return Markup("<td><code>{}</code></td>").format(visible(value))
    if isinstance(value, (int, float)):
        return Markup('<td class="number">{}</td>').format(f"{value:,}")
    return Markup("<td>{}</td>").format(value)


def _lines(message: Mapping[str, object]) -> Markup:
    content = message.get("content")
    return Markup("<br>").join(escape(line) for line in str(content if content is not None else "").split("\n"))
