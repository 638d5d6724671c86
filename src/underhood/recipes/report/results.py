"""Results of a report, arranged for reading: one panel per question, all models in it on one scale."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from underhood.recipes.report.metric_labels import METRIC_LABELS, MetricLabel, metric_label
from underhood.recipes.stages.display import model_hue, model_title
from underhood.ui import formatting


@dataclass(frozen=True)
class PanelRow:
    """One model's measurement: in words, and where it is drawn (percent of the scale).

    Attributes:
        hue: the CSS class of its colour: of a stage, baseline or plain.
        best: the best of its panel.
    """

    name: str
    hue: str
    text: str
    interval: str
    value: float
    at: float
    low: float | None
    high: float | None
    best: bool


@dataclass(frozen=True)
class Panel:
    """One question and all answers to it, on one scale.

    Attributes:
        name: as the evaluation calls it.
        ticks: (percent of the scale, label).
        reference: the level of a guess and what it is called.
        items: how many items a number was measured on.
    """

    key: str
    name: str
    label: MetricLabel
    better: str
    unit: str
    rows: list[PanelRow]
    ticks: list[tuple[float, str]]
    reference: tuple[float, str] | None
    items: str

    def row(self, hue: str) -> PanelRow | None:
        """The row of a stage."""
        return next((row for row in self.rows if row.hue == hue), None)


def stage_measurements(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Measurements by stage: results hold either a list of StageResults or a table by stage name."""
    stages = results.get("stages") or {}
    if isinstance(stages, Mapping):
        return {str(stage): list(measurements) for stage, measurements in stages.items()}
    return {str(item.get("stage")): list(item.get("measurements") or []) for item in stages}


def panels(results: Mapping[str, Any], functions: bool = True) -> list[Panel]:
    """The panels of all quantities measured, in the order of `METRIC_LABELS`, others after them."""
    by_key: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    names: dict[str, str] = {}
    for item in _measured(results.get("baselines") or []):
        # A baseline is a compressor or an n-gram; all of them are measured in bits per byte of held-out text.
        by_key.setdefault("bits-per-byte", []).append((_baseline_name(str(item["name"])), "baseline", item))
    for stage, measurements in stage_measurements(results).items():
        for item in _measured(measurements):
            key = metric_label(str(item["name"])).key
            names.setdefault(key, str(item["name"]))
            by_key.setdefault(key, []).append((model_title(stage), model_hue(stage), item))
    order = [*(label.key for label in METRIC_LABELS), *by_key]
    return [
        _panel(metric_label(names.get(key, "bits per byte"), functions), names.get(key, ""), by_key[key])
        for key in dict.fromkeys(order)
        if key in by_key
    ]


def shown(unit: str, value: float) -> str:
    """A value in words: shares in percent, others with three digits and without their unit."""
    if unit == "share":
        return formatting.percent(value)
    return formatting.decimal(value, 2 if abs(value) >= 10 or unit == "nats" else 3)


def between(unit: str, low: float, high: float) -> str:
    """An interval in words: ``64–71 %``, ``1.691–1.753``, ``−0.10 to 0.20``."""
    if unit == "share":
        digits = 0 if high - low >= 0.02 else 1
        return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}{formatting.NBSP}%"
    return shown(unit, low) + (" to " if low < 0 else "–") + shown(unit, high)


def _measured(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [item for item in items if _finite(item.get("value")) and item.get("name")]


def _baseline_name(name: str) -> str:
    """``xz`` of ``bits per byte (xz)``, ``xz: bits per byte`` or ``xz``."""
    rest = re.sub(r"bits.per.byte|[:,()]", " ", name.replace("_", " "), flags=re.IGNORECASE)
    return " ".join(rest.split()) or name


def _panel(label: MetricLabel, name: str, measurements: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Panel:
    key, first = label.key, measurements[-1][2]
    unit, upward = str(first.get("unit", "share")), bool(first.get("higher_is_better", True))
    chance = first.get("chance")
    if chance is None and key == "margin":
        chance = 0.0
    low, high, ticks = _scale(unit, chance, [item for _, _, item in measurements])

    def at(number: float) -> float:
        return round(min(max(100 * (number - low) / (high - low), 0), 100), 2)

    best = (max if upward else min)(float(item["value"]) for _, _, item in measurements)
    rows = []
    for model, hue, item in measurements:
        low_end, high_end = item.get("low"), item.get("high")
        drawn = _finite(low_end) and _finite(high_end)
        rows.append(
            PanelRow(
                name=model,
                hue=hue,
                text=shown(unit, item["value"]),
                interval=between(unit, low_end, high_end) if _finite(low_end) and _finite(high_end) else "",
                value=float(item["value"]),
                at=at(item["value"]),
                low=at(low_end) if _finite(low_end) and drawn else None,
                high=at(high_end) if _finite(high_end) and drawn else None,
                best=len(measurements) > 1 and item["value"] == best,
            )
        )
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    labels = [formatting.percent(t) if unit == "share" else formatting.tick_label(t, step) for t in ticks]
    reference = None
    if _finite(chance):
        words = f"{label.level} {formatting.percent(chance)}" if unit == "share" else label.level
        reference = (at(chance), words)
    counts = sorted({int(item["n"]) for _, hue, item in measurements if hue != "baseline" and item.get("n", 1) > 1})
    return Panel(
        key=key,
        name=name,
        label=label,
        better="higher is better" if upward else "lower is better",
        unit=unit,
        rows=rows,
        ticks=[(at(t), text) for t, text in zip(ticks, labels, strict=True)],
        reference=reference,
        items=" to ".join(formatting.whole(count) for count in dict.fromkeys(counts[:1] + counts[-1:])),
    )


def _scale(unit: str, chance: Any, items: Sequence[Mapping[str, Any]]) -> tuple[float, float, list[float]]:
    ends = [float(item[end]) for item in items for end in ("value", "low", "high") if _finite(item.get(end))]
    if unit == "share" or (unit == "" and min(ends) >= 0 and max(ends) <= 1):  # a plain score such as ROUGE
        return 0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]
    if _finite(chance):
        ends.append(chance)
    pad = 0.06 * (max(ends) - min(ends)) or 0.05 * abs(ends[0]) or 1.0
    low, high = min(ends) - pad, max(ends) + pad
    return low, high, formatting.nice_ticks(low, high, 4)


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
