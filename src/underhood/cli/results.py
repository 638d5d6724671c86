"""The table of results in the terminal: one row per measurement, one column per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def print_table(results: ResultsTable, out: Console) -> None:
    """The table, what its marks mean, and the baselines."""
    stages = [stage.stage for stage in results.stages]
    compared = False
    rows = []
    for name in results.names:
        cells = []
        for stage in results.stages:
            measured, change = stage.get(name), results.comparison(name, stage.stage)
            compared |= change is not None
            cells.append(_cell(measured) + (f" {MARKS[change.verdict]}" if change else "") if measured else "")
        rows.append([name, *cells])
    out.print(table(["", *stages], rows))
    out.print()
    marks = " ▲ helped, ▼ hurt, = no difference that these items can show." if compared else ""
    out.print(f"± half of the 95 % interval.{marks}", style="dim")
    if results.baselines:
        baselines = ", ".join(f"{baseline.name} {baseline.value:.3f}" for baseline in results.baselines)
        out.print(f"Bits per byte of others, given the same training text: {baselines}.", style="dim")


def print_examples(examples: Sequence[Mapping[str, str]], refused: Mapping[str, str] | None, out: Console) -> None:
    """Questions that the model answered rightly when it was asked, with answers and sources; one that it refused."""
    if not examples:
        return
    out.print("\nAsk it, for example:\n")
    for example in examples[:3]:
        out.print(f"> {example['question']}", style="bold")
        out.print(example["answer"])
        source = example.get("source", "")
        out.print(f"[1] {source}\n" if source else "", style="dim")
    if refused:
        out.print("It refuses other questions:\n")
        out.print(f"> {refused['question']}", style="bold")
        out.print(f"{refused['answer']}\n")


def only(results: ResultsTable, stage: str, run: Path) -> ResultsTable:
    """The table of one stage alone.

    Raises:
        UserError: it was not measured.
    """
    kept = tuple(item for item in results.stages if item.stage == stage)
    if not kept:
        verb = stage_of_model(stage).name
        raise UserError(f"{run} has no finished {stage} model", fix=f"Make it with underhood {verb} {run}")
    comparisons = tuple(item for item in results.comparisons if item.after == stage)
    return replace(results, stages=kept, comparisons=comparisons)


def _cell(measurement: Measurement) -> str:
    """Short enough for three columns in 80: the value and half the width of its interval."""
    scale, digits = (100, 0) if measurement.unit == "share" else (1, 2)
    percent = " %" if measurement.unit == "share" else ""
    if measurement.low is None or measurement.high is None:
        return f"{measurement.value * scale:.{digits}f}{percent}"
    half = (measurement.high - measurement.low) / 2 * scale
    return f"{measurement.value * scale:.{digits}f} ±{half:.{digits}f}{percent}"
