"""One stage of a run: trained as part of a build, or repeated, lengthened and varied on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.core.protocols import CountedModel
from underhood.models.base import BuiltModel
from underhood.models.restore import restore
from underhood.recipes.corpus import prepare_data
from underhood.recipes.feedback import learn_from_feedback
from underhood.recipes.film import Film, planned_snapshots, question_prompt, text_prompt
from underhood.recipes.preparation import Clock, Prepared, prepare, run_retriever
from underhood.recipes.published_run import refuse_finetuned, refuse_published
from underhood.recipes.run import Run, differences
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stage_models import lora_of, write_trained_model
from underhood.recipes.stage_requests import plan_added_stage
from underhood.recipes.stages.registry import (
    Stage,
    StageInputs,
    all_stages,
    get_stage,
    stage_of_model,
    stages_after,
    stages_before,
)
from underhood.recipes.start_model import BEFORE, source_model
from underhood.recipes.training import train_stage
from underhood.train.distributed import DataParallel, first_rank_first, on_first_rank, rank_and_size
from underhood.train.plan import Plan

OF_THE_DATA = ("data", "from_", "text_field", "seed", "held_out", "vocab_size")
"""Settings that a run can't change any more: its texts and its tokenizer are made by them."""

FEW_STEPS = 10
"""Optimiser steps below which a stage has hardly begun to learn."""


@dataclass(frozen=True)
class Trained:
    """What the command of a stage did.

    Attributes:
        model: the model that the stage makes.
        steps: optimiser steps that it has had in its stage.
        before: those it had when the command began.
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


def planned_stages(plan: Plan) -> tuple[Stage, ...]:
    """The stages that this plan holds, in order."""
    return tuple(get_stage(stage.stage) for stage in plan.stages)


def locate(path: Path) -> tuple[Path, Path | None]:
    """The run that a path names, and the checkpoint if it names one: ``RUN`` or ``RUN/checkpoints/MODEL/step-…``."""
    inside = path.absolute()
    if inside.parent.parent.name == "checkpoints":
        read_checkpoint(path)
        return inside.parent.parent.parent, path
    return path, None


def open_or_create(path: Path, wanted: BuildSpec, *, restart: bool) -> Run:
    """The run at `path`, made by these settings if there is none.

    Raises:
        UserError: the run was made by other settings, and they can't be changed, or not without `restart`.
    """
    if not (path / "run.toml").exists():
        refuse_finetuned(path)
        refuse_published(path)
        return Run.create(path, wanted)
    run = Run.open(path)
    changes = differences(run, wanted)
    fixed = [name for name in changes if name in OF_THE_DATA]
    if fixed or (changes and not restart):
        name = fixed[0] if fixed else next(iter(changes))
        raise UserError(
            f"{path} was made with {name.replace('_', '-')} {run.spec.flat()[name]}",
            got=str(changes[name]),
            fix="Make another run for that" if fixed else "Give --restart to start the stage anew with it",
        )
    if changes:
        run = run.update(**changes)
        for name in ("plan.json", "time.json"):  # a plan for these settings, with the whole time before it
            (path / name).unlink(missing_ok=True)
    return run


def tokenize(run: Run) -> dict[str, Any]:
    """Takes a run to the end of its tokenizer stage; returns the facts about text and tokenizer (``data.json``)."""
    try:
        prepare_data(run)
    except UserError:
        if run.made is not None:
            run.discard()
        raise
    return run.note("data") or {}


def run_stage(
    run: Run,
    stage: Stage,
    *,
    restart: bool = False,
    steps: int | None = None,
    start: Path | None = None,
    feedback: Path | None = None,
    parallel: DataParallel = "ddp",
) -> Trained:
    """Trains one model of a run: the steps still missing, `steps` in all, or all of it with `restart`.

    Models that were made from an earlier version of this one are removed, and so are the measurements.

    Args:
        start: the checkpoint to begin from, in place of the newest of the stage before.
        feedback: a file of what people said about answers (see `data.feedback`).
        parallel: how the processes that `torchrun` started share the work; the first one writes the run folder.

    Raises:
        UserError: the stage before is missing, the text has nothing to teach it by, it has had more steps already, or
            the model is fitted by counting.
        Interrupted: the user stopped it; the same call goes on.
    """
    clock = Clock(run)
    if run.spec.from_ is None and stage.starts_from is not None and start is None:  # said before the work of a plan
        if run.plan is not None:
            _refuse_counted(run, run.plan, stage)
        check_finished(run, stage_of_model(stage.starts_from), f"{stage.name} starts from")
    prepared = first_rank_first(lambda: prepare(run, clock))
    planned = prepared.plan.find(stage.name)
    if planned is None:
        _refuse_counted(run, prepared.plan, stage)
        if stage.optional:
            planned = plan_added_stage(run.spec, prepared.plan, stage, prepared.data, prepared.tokenizer)
    if planned is None:
        if run.spec.from_ is not None and not stage.optional:
            raise UserError(
                f"{run.path} was begun without {stage.name}", fix=f"Build it with --{stage.name}-steps to have it"
            )
        raise UserError(
            f"the text of {run.path} gives no {stage.data_name} for {stage.name}",
            fix=f"Give others: underhood {stage.name} {run.path} {stage.any_model}" if stage.any_model else None,
        )
    if prepared.plan.find(stage.name) is None:
        prepared = replace(prepared, plan=replace(prepared.plan, stages=(*prepared.plan.stages, planned)))
    check_used_models(run, stage)
    source = source_model(run.spec, prepared.plan, stage)
    if source is not None and source != BEFORE and start is None:
        check_finished(run, stage_of_model(source), f"{stage.name} starts from")
    had = 0 if restart else steps_of(run, stage)
    if start is not None:
        _check_start(run, stage, start, finished=not restart and run.finished(stage))
    if steps is not None and steps < had:
        raise UserError(
            f"the {stage.model} model has had {had:,} steps already",
            expected=f"more than that, or --restart, got {steps:,}",
        )
    if steps is not None:
        planned = replace(planned, fixed=True, steps=steps, seconds=planned.seconds * steps / planned.steps)
        prepared = replace(prepared, plan=prepared.plan.with_stage(planned))
    if stage.takes_feedback:
        data, note = first_rank_first(
            partial(
                learn_from_feedback,
                prepared.data,
                feedback,
                run.path / "data" / "feedback.jsonl",
                reads=planned.steps * planned.batch_size,
                had=had,
                restart=restart,
                seed=run.spec.seed,
            )
        )
        prepared = replace(prepared, data=data)
        if note:
            run.log.event(stage.name, "note", text=note)
    forgotten: tuple[str, ...] = ()
    unfinished = had < planned.steps if planned.fixed else restart or not run.finished(stage)
    if unfinished:
        users = tuple(user for user in all_stages() if stage.name in run.spec.uses(user))
        later = tuple(later.model for later in (*stages_after(stage), *users))
        forgotten = tuple(model for model in later if newest(run.checkpoints(model)))
        plan_note = {"plan": to_json(prepared.plan), "hardware": to_json(prepared.hardware)}
        on_first_rank(lambda: None)  # every process has seen what there was
        on_first_rank(lambda: run.forget(*((stage.model, *later) if restart else later)))
        on_first_rank(lambda: run.write_note("plan", plan_note))
        try:
            if not run.finished(stage):
                train_in_run(run, stage, prepared, start, parallel=parallel)
        finally:
            if rank_and_size()[0] == 0:
                clock.note()
    path = newest(run.checkpoints(stage.model))
    assert path is not None
    state = read_checkpoint(path).state
    return Trained(run.path, stage.model, path, state["step"], had, state["tokens"], state.get("smoothed"), forgotten)


def train_in_run(
    run: Run, stage: Stage, prepared: Prepared, start: Path | None = None, parallel: DataParallel = "ddp"
) -> None:
    """Trains one stage's model; an interrupted one goes on.

    Args:
        start: the checkpoint to begin from, in place of the newest of the stage before.
        parallel: how several processes share the work.
    """
    spec, plan = run.spec, prepared.plan
    settings, planned, device = spec.stage_settings(stage), plan.find(stage.name), prepared.hardware.device
    assert planned is not None
    source = source_model(spec, plan, stage)
    if source is not None:
        model = load_model(run, source, start)
    else:
        assert stage.initialize is not None
        model = stage.initialize(plan.model, settings, spec.seed)
    lora = lora_of(spec, model)
    if lora is not None:
        lora.apply(model, seed=spec.seed)
    inputs = StageInputs(
        model=model.to(device.torch),
        data=prepared.data,
        documents=prepared.documents,
        held_out=prepared.held_out,
        settings=settings,
        tokenizer=prepared.tokenizer,
        plan=planned,
        device=device,
        seed=spec.seed,
        template=prepared.template if spec.from_ is not None else None,
        run=run.path,
    )
    check_used_models(run, stage)
    trained = "taught" if spec.from_ is None else "tuned"
    state = {
        "spec": to_json(plan.model, tagged=True),
        "model": stage.model,
        "order": len(stages_before(stage)),
        "chats": stage.chats,
        "retrieval": trained if stage.chats and prepared.data.grounded else None,
        "tokenizer": run.tokenizer_state,
    }
    direct = lora is None and stage.train is None
    folder = run.checkpoints(stage.model) if direct else run.training_folder(stage.model)
    made = {"checkpoints": folder, "state": state, "parallel": parallel, "lora": lora}
    sharded = parallel == "fsdp" and rank_and_size()[1] > 1  # one process alone can't ask its part of a model
    film = None if sharded or stage.train is not None else _film(run, stage, inputs, prepared, state, lora is None)
    outcome = train_stage(stage, inputs, spec, prepared.hardware, log=run.log, film=film, **made)
    if not direct:
        base = None if lora is None else spec.from_
        on_first_rank(lambda: write_trained_model(run, stage, model, base, outcome))


def _refuse_counted(run: Run, plan: Plan, stage: Stage) -> None:
    """Raises a UserError where a stage is to train a model that is fitted by counting."""
    if plan.find(stage.name) is None and isinstance(plan.model.build(), CountedModel):
        raise UserError(
            f"the model of {run.path} only counts, so it can't be trained by {stage.name}",
            expected="a model that learns by gradients",
            fix="Make another run, with --architecture qwen3 or gated-conv",
        )


def check_used_models(run: Run, stage: Stage) -> None:
    """Raises a UserError where a model is missing that the stage uses beside the one it starts from."""
    for name in run.spec.uses(stage):
        check_finished(run, get_stage(name), f"{stage.name} learns from")


def check_finished(run: Run, stage: Stage, purpose: str) -> None:
    """Raises a UserError where a stage's model is missing or unfinished."""
    if not run.finished(stage):
        raise UserError(
            f"{run.path} has no finished {stage.model} model, which {purpose}",
            fix=f"Make it with underhood {stage.name} {run.path}",
        )


def _film(run: Run, stage: Stage, inputs: StageInputs, prepared: Prepared, state: dict[str, Any], whole: bool) -> Film:
    """Samples of the stage as events, and snapshots if `whole` checkpoints are kept; only the first process writes."""
    plan, tokenizer = inputs.plan, prepared.tokenizer
    if stage.chats:
        prompt = question_prompt(prepared.data, run_retriever(run.spec, prepared), tokenizer, prepared.template)
    else:
        prompt = text_prompt(prepared.held_out, tokenizer)
    steps = planned_snapshots(
        inputs.model, plan.steps, plan.seconds, fresh=source_model(run.spec, prepared.plan, stage) is None
    )
    return Film(
        inputs.model,
        stage.name,
        tokenizer,
        run.log,
        prompt=prompt,
        seconds=plan.seconds,
        snapshots=(run.snapshots(stage.model), steps) if whole and rank_and_size()[0] == 0 else None,
        facts=state,
    )


def few_steps_warning(run: Run, stage: Stage) -> str | None:
    """A sentence for the user where the time was enough for a few steps of the stage only."""
    steps = steps_of(run, stage)
    if steps >= FEW_STEPS or run.spec.stage_settings(stage).steps is not None:
        return None
    count, title = f"{steps} step{'' if steps == 1 else 's'}", stage.title[:1].lower() + stage.title[1:]
    return (
        f"Only {count} of {title} fit in the time, so it has hardly begun to learn. Give more --minutes, or run it "
        "while nothing else uses the machine."
    )


def load_model(run: Run, model: str, path: Path | None = None) -> BuiltModel:
    """A model of the run (or the checkpoint `path`), on the CPU, in evaluation mode.

    Raises:
        UserError: there is no such model in this run, or `path` belongs to another tokenizer.
    """
    path = path or newest(run.checkpoints(model))
    if path is None:
        have = [stage.model for stage in all_stages() if newest(run.checkpoints(stage.model))]
        raise UserError(
            f"{run.path} has no {model} model yet",
            got=f"models: {', '.join(have)}" if have else "no model at all",
            fix=f"Make it with underhood {stage_of_model(model).name} {run.path}",
        )
    saved = read_checkpoint(path)
    if saved.state.get("tokenizer") not in (None, run.tokenizer_state):
        raise UserError(f"{path} was trained with another tokenizer than the one in {run.path}")
    return restore(saved)


def _check_start(run: Run, stage: Stage, start: Path, *, finished: bool) -> None:
    model = start.absolute().parent.name
    earlier = [before.model for before in stages_before(stage)]
    if model not in earlier:
        expected = f"one of the {' or '.join(earlier)} model" if earlier else f"the run: {stage.name} starts fresh"
        raise UserError(f"{stage.name} can't start from {start}", expected=expected)
    if finished:
        raise UserError(
            f"{run.path} has a {stage.model} model already", fix="Give --restart to make it from that checkpoint"
        )
    load_model(run, model, start)


def steps_of(run: Run, stage: Stage) -> int:
    """Optimiser steps that the stage's model has had."""
    path = newest(run.checkpoints(stage.model))
    return 0 if path is None else int(read_checkpoint(path).state["step"])
