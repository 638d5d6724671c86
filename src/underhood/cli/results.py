"""The table of results in the terminal: one row per measurement, one column per stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from underhood.core.errors import UserError
from underhood.evals.table import Measurement, ResultsTable
from underhood.recipes.run import Run
from underhood.recipes.stages.registry import stage_of_model
from underhood.ui.terminal import table

MARKS = {"helped": "▲", "hurt": "▼", "no difference": "="}


def print_results(run: Run, out: Console) -> None:
    """Prints what the last evaluation of a run found."""
    saved = run.note("results")
    if saved is not None:
        print_table(ResultsTable.from_json(saved["table"], where="results.json"), out)


def print_table(found: ResultsTable, out: Console) -> None:
    """The table, what its marks mean, and the baselines."""
    stages = [stage.stage for stage in found.stages]
    compared = False
    rows = []
    for name in found.names:
        cells = []
        for stage in found.stages:
            measured, change = stage.get(name), found.comparison(name, stage.stage)
            compared |= change is not None
            cells.append(_cell(measured) + (f" {MARKS[change.verdict]}" if change else "") if measured else "")
        rows.append([name, *cells])
    out.print(table(["", *stages], rows))
    out.print()
    marks = " ▲ helped, ▼ hurt, = no difference that these items can show." if compared else ""
    out.print(f"± half of the 95 % interval.{marks}", style="dim")
    if found.baselines:
        said = ", ".join(f"{one.name} {one.value:.3f}" for one in found.baselines)
        out.print(f"Bits per byte of others, given the same training text: {said}.", style="dim")


def only(found: ResultsTable, stage: str, run: Path) -> ResultsTable:
    """The table of one stage alone.

    Raises:
        UserError: it was not measured.
    """
    kept = tuple(one for one in found.stages if one.stage == stage)
    if not kept:
        verb = stage_of_model(stage).name
        raise UserError(f"{run} has no finished {stage} model", fix=f"Make it with underhood {verb} {run}")
    return replace(found, stages=kept, comparisons=tuple(one for one in found.comparisons if one.after == stage))


def _cell(one: Measurement) -> str:
    """Short enough for three columns in 80: the value and half the width of its interval."""
    scale, digits = (100, 0) if one.unit == "share" else (1, 2)
    percent = " %" if one.unit == "share" else ""
    if one.low is None or one.high is None:
        return f"{one.value * scale:.{digits}f}{percent}"
    half = (one.high - one.low) / 2 * scale
    return f"{one.value * scale:.{digits}f} ±{half:.{digits}f}{percent}"
