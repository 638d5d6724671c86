"""The part of ``underhood eval`` that scores a model on published test sets (``--tasks``)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from underhood.core.errors import UserError


def score_tasks(
    model: Path,
    tasks: str,
    *,
    stage: str | None = None,
    task_data: Sequence[Path] = (),
    limit: int | None = None,
    shots: int | None = None,
    as_json: bool = False,
) -> int:
    """Scores a model on the sets named in `tasks` (with commas between them) and prints what was found.

    Args:
        model: a run, a checkpoint, or whatever else `underhood.load` opens.
        task_data: folders with the sets' files; none means the Hugging Face Hub.
        as_json: one JSON object on standard output in place of the table, every question's numbers included.

    Raises:
        UserError: an unknown set, a set that can't be read, a model that can't be loaded.
    """
    from underhood.evals.tasks import task_named

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UserError("--tasks names no set", fix="Name some, e.g. --tasks arc_easy,piqa")
    wanted = [task_named(name) for name in dict.fromkeys(names)]

    from underhood.cli.model_loading import open_model
    from underhood.evals.likelihood import LikelihoodScorer
    from underhood.evals.score_tasks import score_task
    from underhood.ui.terminal import console, table

    loaded = open_model(model, stage)
    reader = LikelihoodScorer.of(loaded)
    err = console(sys.stderr)
    reports = []
    for task in wanted:
        start = time.perf_counter()
        report = score_task(reader, task, task_data, limit=limit, shots=shots, stop_ids=loaded.stop_ids)
        err.print(f"{task.name}: {len(report.items):,} questions, {time.perf_counter() - start:.0f} s", style="dim")
        reports.append(report)
    if as_json:
        results = [report.to_json(items=True) for report in reports]
        print(json.dumps({"model": str(model), "stage": loaded.stage, "tasks": results}, ensure_ascii=False))
        return 0
    out = console()
    rows = [
        [
            report.task.name,
            measurement.name,
            measurement.text(),
            report.shots,
            _percent(measurement.chance),
        ]
        for report in reports
        for measurement in report.measurements
    ]
    out.print(table(["task", "measured", "value (95 % interval)", "shots", "guessing"], rows))
    return 0


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
