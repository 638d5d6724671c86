"""The main job: one command from text to a model that answers, with every stage measured.

The stages hand over through files in the run's folder, and each looks first whether its result is there. Resuming is
therefore the same as running: finished stages are skipped, interrupted ones go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from underhood.recipes.evaluate_run import evaluate_all
from underhood.recipes.preparation import Clock, prepare
from underhood.recipes.run import Run
from underhood.recipes.stage_jobs import planned_stages, train_in_run
from underhood.recipes.summary import write_summary
from underhood.train.stopping import Interrupted


def build(run: Run, *, report: Callable[[Run], Any] | None = None, command: str = "") -> None:
    """Takes a run from wherever it is to the end: data, tokenizer, plan, training stages, evaluation, report.

    Args:
        report: writes the report; called last.
        command: the command line to print under "how to reproduce".

    Raises:
        Interrupted: the user stopped it; resuming goes on from there.
    """
    clock = Clock(run)
    prepared = prepare(run, clock)
    try:
        for stage in planned_stages(prepared.plan):
            if not run.finished(stage):
                train_in_run(run, stage, prepared)
        evaluate_all(run, prepared, planned_stages(prepared.plan))
    except (Interrupted, KeyboardInterrupt):
        clock.note()
        raise
    write_summary(run, prepared.plan, prepared.hardware, command=command, seconds=clock.seconds)
    if report is not None:
        run.log.event("report", "start")
        begun = time.perf_counter()
        report(run)
        run.log.event("report", "end", seconds=time.perf_counter() - begun)
        # Once more, with the report's own time.
        write_summary(run, prepared.plan, prepared.hardware, command=command, seconds=clock.seconds)
