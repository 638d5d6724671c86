"""The pipeline as a picture: what each stage made, and — fanned out below it — what share of the time it took.

Every small drawing in it is of this run: the documents kept and dropped, the sample's real tokens, the real training
curves, the measured accuracies. Two layouts of the same content, one wide and one for a phone, each in its own
coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.recipes.report.anatomy import Anatomy
from underhood.recipes.report.run_reader import RecordedRun, RecordedStage
from underhood.recipes.report.tokens import Chip
from underhood.recipes.stages.display import drawn_stages, hue_of, purpose_of, short_title_of, trained_stages
from underhood.ui import formatting
from underhood.ui.curves import Curve

WIDE, NODE, GLYPH_WIDTH, GLYPH_HEIGHT = 1040, 172, 136, 52
ROW, FAN_TOP, BAR_TOP = 98, 182, 228


@dataclass(frozen=True)
class Node:
    """A stage in the picture.

    Attributes:
        hue: the CSS class of its colour.
        lines: what it made, then its time, then its cost.
        glyph: rectangles (x, y, width, height, class) and paths (d, class) in a 136 × 52 box.
        start, end: its part of the time, as shares from 0 to 1; equal when it took none.
    """

    name: str
    title: str
    purpose: str
    hue: str
    status: str
    lines: list[str]
    time: str
    share: str
    rectangles: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    paths: list[tuple[str, str]] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0


@dataclass(frozen=True)
class Pipeline:
    """All nodes, the total time in words, and the part of it spent between the drawn stages (planning, the report)."""

    nodes: list[Node]
    total: str
    rest: str | None

    def fan(self, index: int) -> str:
        """Wide layout: the area that leads from a node down to its part of the time bar."""
        node, left = self.nodes[index], NODE * index
        x0, x1 = WIDE * node.start, WIDE * node.end
        top, bottom = FAN_TOP, BAR_TOP
        mid = (top + bottom) / 2
        right = left + GLYPH_WIDTH
        return (
            f"M{left} {top}C{left} {mid} {x0:.1f} {mid} {x0:.1f} {bottom}H{x1:.1f}C{x1:.1f} {mid} {right} {mid} "
            f"{right} {top}Z"
        )

    def fan_down(self, index: int) -> str:
        """Phone layout: the same from a row to its part of the upright bar at the left."""
        node, height = self.nodes[index], ROW * len(self.nodes)
        y0, y1 = height * node.start, height * node.end
        top, bottom = ROW * index + 10, ROW * index + ROW - 14
        return f"M14 {y0:.1f}C26 {y0:.1f} 26 {top} 38 {top}V{bottom}C26 {bottom} 26 {y1:.1f} 14 {y1:.1f}Z"


def pipeline(
    run: RecordedRun,
    anatomy: Anatomy | None,
    losses: Mapping[str, Curve],
    sample: Sequence[Chip],
    accuracies: Sequence[tuple[str, float]],
) -> Pipeline:
    """Lays out the picture.

    Args:
        losses: each training stage's loss curve, where there is one.
        accuracies: (stage hue, share) of the last measured models on held-out multiple choice, for the last drawing.
    """
    names = _drawn(run)
    drawn = sum(run.stages[name].seconds or 0.0 for name in names)
    total = max(float(run.summary.get("seconds") or 0.0), sum(stage.seconds or 0.0 for stage in run.stages.values()))
    nodes, at = [], 0.0
    for name in names:
        stage = run.stages[name]
        seconds = stage.seconds or 0.0
        rectangles, paths = _glyph(run, name, losses, sample, accuracies)
        nodes.append(
            Node(
                name=name,
                title=short_title_of(name),
                purpose=purpose_of(name),
                hue=hue_of(name),
                status=stage.status,
                lines=_lines(run, stage, anatomy),
                time=formatting.duration(seconds) if stage.seconds is not None else "",
                share=formatting.percent(seconds / (total or 1.0)),
                rectangles=rectangles,
                paths=paths,
                start=at / (total or 1.0),
                end=(at + seconds) / (total or 1.0),
            )
        )
        at += seconds
    rest = formatting.duration(total - drawn) if total - drawn > 0.005 * total else None
    return Pipeline(nodes, formatting.duration(total), rest)


def _drawn(run: RecordedRun) -> list[str]:
    """The stages in the picture: of those that train, the ones that the run's plan holds, where it has one."""
    planned = (run.summary.get("plan") or {}).get("stages")
    if not planned:
        return [*drawn_stages()]
    return [name for name in drawn_stages() if name in planned or name not in trained_stages()]


def stage_flops(run: RecordedRun, name: str, anatomy: Anatomy | None) -> float | None:
    """Floating-point operations of a training stage: logged, or tokens times the cost of a token."""
    stage = run.stages[name]
    logged = stage.facts.get("flops")
    if isinstance(logged, (int, float)):
        return float(logged)
    if anatomy is None or not stage.tokens or name not in trained_stages():
        return None
    return anatomy.training_flops * stage.tokens


def _lines(run: RecordedRun, stage: RecordedStage, anatomy: Anatomy | None) -> list[str]:
    if stage.status == "missing":
        return ["not run"]
    corpus: Any = run.summary.get("corpus") or stage.facts
    tokenizer: Any = run.summary.get("tokenizer") or stage.facts
    lines: list[str] = []
    if stage.name == "data":
        if corpus.get("documents"):
            lines.append(f"{formatting.whole(corpus['documents'])} documents")
        if corpus.get("bytes"):
            lines.append(formatting.size(corpus["bytes"]))
    elif stage.name == "tokenizer":
        if tokenizer.get("vocab_size"):
            lines.append(f"{formatting.whole(tokenizer['vocab_size'])} tokens")
        if tokenizer.get("bytes_per_token"):
            lines.append(f"{formatting.decimal(tokenizer['bytes_per_token'], 2)} bytes each")
    elif stage.name in trained_stages():
        if stage.status == "stopped" and stage.step and stage.steps:
            lines.append(f"stopped at {formatting.whole(stage.step)} of {formatting.whole(stage.steps)}")
        elif stage.step:
            lines.append(f"{formatting.whole(stage.step)} steps")
        if stage.tokens:
            lines.append(f"{formatting.count(stage.tokens)} tokens")
        if (spent := stage_flops(run, stage.name, anatomy)) is not None:
            lines.append(formatting.flops(spent))
    elif stage.name == "eval" and run.summary.get("results"):
        models = len(run.summary["results"].get("stages") or {})
        lines.append(f"{models} model{'' if models == 1 else 's'} compared")
        lines.append(f"{len(run.summary['results'].get('baselines') or [])} baselines")
    return lines


def _glyph(
    run: RecordedRun,
    name: str,
    losses: Mapping[str, Curve],
    sample: Sequence[Chip],
    accuracies: Sequence[tuple[str, float]],
) -> tuple[list[tuple[float, float, float, float, str]], list[tuple[str, str]]]:
    if name == "data":
        return _data_glyph(run), []
    if name == "tokenizer":
        return _token_glyph(sample), []
    if name in losses:
        curve = losses[name]
        points = [
            (curve.left(x) / 100 * GLYPH_WIDTH, 3 + curve.up(y) / 100 * (GLYPH_HEIGHT - 6))
            for x, y in zip(curve.x, curve.y, strict=True)
        ]
        thinned = points[:: max(1, len(points) // 60)] + points[-1:]
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in thinned)
        return [], [(f"{line}V{GLYPH_HEIGHT}H0Z", f"under {hue_of(name)}"), (line, f"stroke {hue_of(name)}")]
    if name == "eval" and accuracies:
        height = GLYPH_HEIGHT / len(accuracies)
        bars = [
            (0.0, index * height + 2, max(share, 0.01) * GLYPH_WIDTH, height - 5, f"fill {hue}")
            for index, (hue, share) in enumerate(accuracies)
        ]
        chance = f"M{GLYPH_WIDTH / 4} 0V{GLYPH_HEIGHT}"
        return bars, [(chance, "stroke reference")]
    return [], []


def _data_glyph(run: RecordedRun) -> list[tuple[float, float, float, float, str]]:
    """Documents as an area: trained on, held out, dropped."""
    corpus: Any = run.summary.get("corpus") or {}
    parts = [
        ((corpus.get("train") or {}).get("documents", 0), "fill plain"),
        ((corpus.get("held_out") or {}).get("documents", 0), "fill held-out"),
        (sum((corpus.get("dropped") or {}).values()), "fill dropped"),
    ]
    total = sum(documents for documents, _ in parts)
    if not total:
        return []
    cells, columns, rows = [], 17, 6
    bounds, reached = [], 0.0
    for documents, kind in parts:
        reached += documents / total * columns * rows
        bounds.append((round(reached), kind))
    for index in range(columns * rows):
        kind = next(kind for bound, kind in bounds if index < bound)
        cells.append((index // rows * 8.0, index % rows * 8.8, 6.2, 6.0, kind))
    return cells


def _token_glyph(sample: Sequence[Chip]) -> list[tuple[float, float, float, float, str]]:
    """The sample's first tokens as boxes as long as their bytes."""
    boxes: list[tuple[float, float, float, float, str]] = []
    x, line = 0.0, 0
    for chip in sample:
        width = chip.bytes * 5.0
        if x + width > GLYPH_WIDTH:
            x, line = 0.0, line + 1
        if line == 4 or width > GLYPH_WIDTH:
            break
        boxes.append((x, line * 13.4, width - 1.6, 10.6, f"chip-{chip.level}"))
        x += width
    return boxes
