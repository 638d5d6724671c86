"""The table of results in the terminal: one row per measurement, one column per stage."""

from __future__ import annotations

from rich.console import Console

from underhood.cli.terminal import table
from underhood.evals.table import Measurement, ResultsTable
from underhood.recipes.run import Run

MARKS = {"helped": "▲", "hurt": "▼", "no difference": "="}


def print_results(run: Run, out: Console) -> None:
    """Prints what the last evaluation of a run found."""
    saved = run.note("results")
    if saved is None:
        return
    found = ResultsTable.from_json(saved["table"], where="results.json")
    stages = [stage.stage for stage in found.stages]
    rows = []
    for name in found.names:
        cells = []
        for stage in found.stages:
            measured, change = stage.get(name), found.comparison(name, stage.stage)
            cells.append(_cell(measured) + (f" {MARKS[change.verdict]}" if change else "") if measured else "")
        rows.append([name, *cells])
    out.print(table(["", *stages], rows))
    out.print("Intervals are 95 %. ▲ helped, ▼ hurt, = no difference that these items can show.", style="dim")
    if found.baselines:
        said = ", ".join(f"{one.name} {one.value:.3f}" for one in found.baselines)
        out.print(f"Bits per byte of others, given the same training text: {said}.", style="dim")


def _cell(one: Measurement) -> str:
    """Short enough for three columns in 80: the value and half the width of its interval."""
    scale, digits = (100, 0) if one.unit == "share" else (1, 2)
    if one.low is None or one.high is None:
        return f"{one.value * scale:.{digits}f}"
    half = (one.high - one.low) / 2 * scale
    return f"{one.value * scale:.{digits}f} ±{half:.{digits}f}" + (" %" if one.unit == "share" else "")
