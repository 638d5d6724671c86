"""The main job: one command from text to a model that answers, with every stage measured.

The stages hand over through files in the run's folder, and each looks first whether its result is there. Resuming is
therefore the same as running: what is done is skipped, what was interrupted goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from underhood.core.config import from_json, to_json
from underhood.core.device import choose_device
from underhood.core.errors import UserError
from underhood.data.pack import EvaluationWindows
from underhood.evals.preference import PairLogProbs
from underhood.evals.table import ResultsTable
from underhood.models.decoder import parameter_count
from underhood.recipes.corpus import open_shards, prepare_data
from underhood.recipes.evaluation import EvalSize, baselines, evaluate
from underhood.recipes.lessons import Lessons, read_lessons, render_examples, render_pairs
from underhood.recipes.run import MODEL_STAGES, Run
from underhood.recipes.summary import samples_side_by_side, write_summary
from underhood.recipes.training import align, finetune, load_model, optimizer_spec, pretrain
from underhood.train.hardware import Hardware, measure_hardware
from underhood.train.loop import Interrupted
from underhood.train.plan import Plan, check_overrides, make_plan

BASELINE_SECONDS_PER_BYTE = 3.5e-6
REPORT_SECONDS = 2.0


def build(run: Run, *, report: Callable[[Run], Any] | None = None, command: str = "") -> None:
    """Takes a run from wherever it is to the end: data, tokenizer, plan, base, sft, dpo, evaluation, report.

    Args:
        report: writes the report; called last.
        command: the command line to print under "how to reproduce".

    Raises:
        Interrupted: the user stopped it; resuming goes on from there.
    """
    clock = Clock(run)
    lessons, plan, hardware = prepared(run, clock)
    try:
        for stage in stages_of(plan):
            train_stage(run, stage, plan, hardware, lessons)
        evaluate_all(run, plan, hardware, lessons)
    except (Interrupted, KeyboardInterrupt):
        clock.note()
        raise
    write_summary(run, plan, hardware, command=command, seconds=clock.seconds)
    if report is not None:
        run.log.event("report", "start")
        begun = time.perf_counter()
        report(run)
        run.log.event("report", "end", seconds=time.perf_counter() - begun)
        write_summary(run, plan, hardware, command=command, seconds=clock.seconds)  # with the report's own time


class Clock:
    """How long a run has taken: this process from its start, and what it had taken when it was stopped before."""

    def __init__(self, run: Run):
        self.run = run
        self.earlier = float((run.note("time") or {}).get("seconds", 0.0))
        self.here = -_since_process_start() + time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.here

    def note(self) -> None:
        self.run.write_note("time", {"seconds": self.seconds})


def prepared(run: Run, clock: Clock) -> tuple[Lessons, Plan, Hardware]:
    """Everything that stands before training: data, tokenizer, lessons, plan; what is there is read back.

    Raises:
        UserError: a mistake in data or settings; a run that was only just created leaves nothing behind.
    """
    if run.spec.threads:
        torch.set_num_threads(run.spec.threads)
    try:
        choose_device(run.spec.device)
        check_overrides(run.spec.overrides, run.spec.vocab_size)
        prepare_data(run)
        lessons = read_lessons(run.path / "data")
        return lessons, *planned(run, lessons, left=run.spec.minutes * 60 - clock.seconds)
    except UserError:
        if run.made is not None:
            run.discard()
        raise
    except KeyboardInterrupt:
        clock.note()
        raise


def planned(run: Run, lessons: Lessons, *, left: float) -> tuple[Plan, Hardware]:
    """The run's plan and the hardware it was made for; made once, then read back."""
    saved = run.note("plan")
    if saved is not None:
        hardware = from_json(Hardware, saved["hardware"], where="plan.json")
        if choose_device(hardware.device.name) != hardware.device.name:
            raise UserError(f"the run was planned for {hardware.device.name}, which is not here")
        return from_json(Plan, saved["plan"], where="plan.json"), hardware
    started = time.perf_counter()
    run.log.event("plan", "start")
    hardware = measure_hardware(choose_device(run.spec.device), dtype=run.spec.dtype)
    tokenizer = run.tokenizer
    examples = render_examples(tokenizer, lessons.examples)
    pairs = render_pairs(tokenizer, lessons.pairs, context=1 << 20)
    pair_tokens = sum(len(ids) for pair in pairs for ids, _ in pair) // max(1, len(pairs))
    plan = make_plan(
        seconds=left - (time.perf_counter() - started),
        probe_seconds=min(3.0, left / 40),
        hardware=hardware,
        optimizer=optimizer_spec(run.spec, hardware.device),
        vocab_size=tokenizer.vocab_size,
        overrides=run.spec.overrides,
        sft_tokens=sum(len(example.ids) for example in examples),
        pairs=len(pairs),
        pair_tokens=pair_tokens,
        reserve=lambda speed: evaluation_seconds(run, lessons, speed),
    )
    run.write_note("plan", {"plan": to_json(plan), "hardware": to_json(hardware)})
    seconds = time.perf_counter() - started
    with torch.device("meta"):
        parameters = parameter_count(plan.model.build())
    facts = {"reason": plan.reason, "parameters": parameters, "model": to_json(plan.model)}
    run.log.event("plan", "end", seconds=seconds, **facts)
    return plan, hardware


def evaluation_seconds(run: Run, lessons: Lessons, speed: float) -> float:
    """About how long everything after training will take, if training runs at `speed` tokens per second."""
    size = EvalSize.for_minutes(run.spec.minutes)
    windows = EvaluationWindows.of_shards(open_shards(run, "held_out"), context=256, stride=192)
    models = 1 + bool(lessons.examples) + bool(lessons.pairs)
    scored = 1.35 * windows.tokens
    scored += sum(4 * 45 * min(len(asked), size.questions) for asked in lessons.questions.values())
    scored += 2 * 60 * min(len(lessons.held_out_pairs), size.pairs)
    written = 3 * 30 * size.answers
    forward = models * (scored / (3.5 * speed) + written / (1.3 * speed))
    return forward + BASELINE_SECONDS_PER_BYTE * open_shards(run, "train").bytes + REPORT_SECONDS


def stages_of(plan: Plan) -> tuple[str, ...]:
    """The models that this plan makes."""
    return tuple(stage for stage, part in zip(MODEL_STAGES, (plan.pretrain, plan.sft, plan.dpo), strict=True) if part)


def train_stage(
    run: Run, stage: str, plan: Plan, hardware: Hardware, lessons: Lessons, start: Path | None = None
) -> None:
    """Trains one stage's model unless it is finished; an interrupted one goes on.

    Args:
        start: the checkpoint to begin from, in place of the newest of the stage before.
    """
    if run.finished(stage):
        return
    if stage == "base":
        pretrain(run, plan, hardware)
    elif stage == "sft":
        finetune(run, plan, hardware, render_examples(run.tokenizer, lessons.examples), start)
    else:
        align(run, plan, hardware, render_pairs(run.tokenizer, lessons.pairs, context=plan.model.context), start)


def evaluate_all(
    run: Run, plan: Plan, hardware: Hardware, lessons: Lessons, *, stages: Sequence[str] | None = None
) -> ResultsTable:
    """Measures every stage's model and the baselines; writes the note ``results.json``.

    The reward margin of a stage is taken against the stage before it, as in training.
    """
    wanted = tuple(stages or stages_of(plan))
    saved = run.note("results")
    if saved is not None:
        table = ResultsTable.from_json(saved["table"], where="results.json")
        if tuple(stage.stage for stage in table.stages) == wanted:
            return table
    started = time.perf_counter()
    run.log.event("eval", "start")
    size = EvalSize.for_minutes(run.spec.minutes)
    table_baselines = baselines(run)
    found, samples = [], {}
    reference: PairLogProbs | None = None
    device = hardware.device.torch
    for stage in wanted:
        model = load_model(run, stage).to(device)
        with hardware.device.autocast():
            done, scores = evaluate(run, model, lessons, size, stage=stage, reference=reference, device=device)
        reference = scores or reference
        found.append(done.results)
        samples[stage] = done.samples
        run.log.event("eval", "eval", model=stage, **{m.name: m.value for m in done.results.measurements})
    table = ResultsTable.of(found, table_baselines)
    seconds = time.perf_counter() - started
    shown = samples_side_by_side(lessons, samples)
    run.write_note("results", {"table": table.to_json(), "samples": shown, "seconds": seconds})
    run.log.event("eval", "end", seconds=seconds)
    return table


def _since_process_start() -> float:
    """Seconds since this program was started: imports count towards the user's minutes too."""
    return time.time() - psutil.Process().create_time()
