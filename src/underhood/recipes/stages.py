"""One stage of a run on its own: for those who want to repeat, lengthen or vary what `build` does in one go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.evals.table import ResultsTable
from underhood.recipes.build import Clock, evaluate_all, prepared, stages_of, train_stage
from underhood.recipes.corpus import prepare_data
from underhood.recipes.evaluation import EvalSize, evaluate
from underhood.recipes.feedback import learn_from_feedback
from underhood.recipes.run import MODEL_STAGES, STAGE_OF, Run, differences
from underhood.recipes.spec import BuildSpec
from underhood.recipes.training import load_model
from underhood.train.loop import Interrupted
from underhood.train.plan import Plan

OF_THE_DATA = ("data", "text_field", "seed", "held_out", "vocab_size")
"""Settings that a run can't change any more: its texts and its tokenizer are made by them."""

TAUGHT_BY = {"sft": "conversations", "dpo": "preference pairs"}


@dataclass(frozen=True)
class Trained:
    """What a stage verb did.

    Attributes:
        model: base, sft or dpo.
        steps: updates that the model has had in its stage.
        before: those it had when the verb began.
        forgotten: models that were removed because they had been made from an earlier version of this one.
        loss: smoothed, in nats.
    """

    run: Path
    model: str
    checkpoint: Path
    steps: int
    before: int
    tokens: int
    loss: float | None
    forgotten: tuple[str, ...]


def locate(path: Path) -> tuple[Path, Path | None]:
    """The run that a path names, and the checkpoint if it names one: ``RUN`` or ``RUN/checkpoints/base/step-…``."""
    inside = path.absolute()
    if inside.parent.parent.name == "checkpoints":
        read_checkpoint(path)
        return inside.parent.parent.parent, path
    return path, None


def open_or_create(path: Path, wanted: BuildSpec, *, again: bool) -> Run:
    """The run at `path`, made by these settings if there is none.

    Raises:
        UserError: the run was made by other settings, and they can't be changed, or not without `again`.
    """
    if not (path / "run.toml").exists():
        return Run.create(path, wanted)
    run = Run.open(path)
    changes = differences(run, wanted)
    fixed = [name for name in changes if name in OF_THE_DATA]
    if fixed or (changes and not again):
        name = fixed[0] if fixed else next(iter(changes))
        raise UserError(
            f"{path} was made with {name.replace('_', '-')} {getattr(run.spec, name)}",
            got=str(changes[name]),
            fix="Make another run for that" if fixed else "Give --again to start the stage anew with it",
        )
    if changes:
        run = run.update(**changes)
        for name in ("plan.json", "time.json"):  # a plan for these settings, with the whole time before it
            (path / name).unlink(missing_ok=True)
    return run


def tokenize(run: Run) -> dict[str, Any]:
    """Takes a run to the end of its tokenizer stage; returns what is known of text and tokenizer (``data.json``)."""
    try:
        prepare_data(run)
    except UserError:
        if run.made is not None:
            run.discard()
        raise
    return run.note("data") or {}


def run_stage(
    run: Run,
    model: str,
    *,
    again: bool = False,
    steps: int | None = None,
    start: Path | None = None,
    feedback: Path | None = None,
) -> Trained:
    """Trains one model of a run: what is missing of it, `steps` in all, or all of it `again`.

    Models that were made from an earlier version of this one are removed, and so are the measurements.

    Args:
        start: the checkpoint to begin from, in place of the newest of the stage before.
        feedback: for alignment, a file of what people said about answers (see `data.feedback`).

    Raises:
        UserError: the stage before is missing, the text has nothing to teach it by, or it has had more steps already.
        Interrupted: the user stopped it; the same call goes on.
    """
    clock = Clock(run)
    lessons, plan, hardware = prepared(run, clock)
    stage, number = STAGE_OF[model], MODEL_STAGES.index(model)
    part = getattr(plan, stage)
    if part is None:
        raise UserError(f"the text of {run.path} gives no {TAUGHT_BY[model]} for {stage}")
    if number and start is None and not run.finished(MODEL_STAGES[number - 1]):
        before = MODEL_STAGES[number - 1]
        raise UserError(
            f"{run.path} has no finished {before} model, which {stage} starts from",
            fix=f"Make it with underhood {STAGE_OF[before]} {run.path}",
        )
    had = 0 if again else steps_of(run, model)
    if start is not None:
        _check_start(run, model, start, finished=not again and run.finished(model))
    if steps is not None and steps < had:
        raise UserError(
            f"the {model} model has had {had:,} steps already", expected=f"more than that, or --again, got {steps:,}"
        )
    if steps is not None:
        part = replace(part, steps=steps, seconds=part.seconds * steps / part.steps)
        plan = replace(plan, **{stage: part})
    if model == "dpo":
        lessons = learn_from_feedback(run, lessons, feedback, reads=part.steps * part.rows, had=had, again=again)
    forgotten: tuple[str, ...] = ()
    if had < part.steps:
        forgotten = tuple(name for name in MODEL_STAGES[number + 1 :] if newest(run.checkpoints(name)))
        run.forget(*(MODEL_STAGES[number:] if again else MODEL_STAGES[number + 1 :]))
        run.write_note("plan", {"plan": to_json(plan), "hardware": to_json(hardware)})
        try:
            train_stage(run, model, plan, hardware, lessons, start)
        except (Interrupted, KeyboardInterrupt):
            clock.note()
            raise
        clock.note()
    path = newest(run.checkpoints(model))
    assert path is not None
    state = read_checkpoint(path).state
    return Trained(run.path, model, path, state["step"], had, state["tokens"], state.get("smoothed"), forgotten)


def _check_start(run: Run, model: str, start: Path, *, finished: bool) -> None:
    earlier, kind = MODEL_STAGES[: MODEL_STAGES.index(model)], start.absolute().parent.name
    if kind not in earlier:
        expected = f"one of the {' or '.join(earlier)} model" if earlier else "the run: pretraining starts from nothing"
        raise UserError(f"{STAGE_OF[model]} can't start from {start}", expected=expected)
    if finished:
        raise UserError(f"{run.path} has a {model} model already", fix="Give --again to make it from that checkpoint")
    load_model(run, kind, start)


def steps_of(run: Run, model: str) -> int:
    """Updates that a model of the run has had."""
    path = newest(run.checkpoints(model))
    return 0 if path is None else int(read_checkpoint(path).state["step"])


def evaluate_run(run: Run, *, again: bool = False) -> ResultsTable:
    """Measures every finished model of the run, unless the same models have been measured; keeps the results."""
    if not (run.path / "plan.json").exists():
        raise UserError(f"{run.path} has no model yet", fix=f"Make one with underhood pretrain {run.path}")
    clock = Clock(run)
    lessons, plan, hardware = prepared(run, clock)
    done = finished_models(run, plan)
    if not done:
        raise UserError(f"{run.path} has no finished model", fix=f"Make one with underhood pretrain {run.path}")
    if again:
        run.forget()
    table = evaluate_all(run, plan, hardware, lessons, stages=done)
    clock.note()
    return table


def evaluate_checkpoint(run: Run, path: Path) -> ResultsTable:
    """Measures one checkpoint by itself; keeps nothing."""
    lessons, _, hardware = prepared(run, Clock(run))
    stage = path.absolute().parent.name
    model = load_model(run, stage, path).to(hardware.device.torch)
    with hardware.device.autocast():
        size = EvalSize.for_minutes(run.spec.minutes)
        done, _ = evaluate(run, model, lessons, size, stage=stage, reference=None, device=hardware.device.torch)
    return ResultsTable.of([done.results], [])


def finished_models(run: Run, plan: Plan) -> tuple[str, ...]:
    """The models of the plan that are there, up to the first that is missing."""
    found: list[str] = []
    for stage in stages_of(plan):
        if not run.finished(stage):
            break
        found.append(stage)
    return tuple(found)
