"""Evaluating what a run holds: all its finished models beside the baselines, or one checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.errors import UserError
from underhood.evals.preference import PairLogProbs
from underhood.evals.table import ResultsTable
from underhood.models.base import BuiltModel
from underhood.recipes.evaluation import REWARD_BETA, EvalSize, Evaluated, baselines, evaluate
from underhood.recipes.grounded_evaluation import refused_example, showcase
from underhood.recipes.preparation import Clock, Prepared, prepare, run_retriever
from underhood.recipes.reward_stage import evaluate_reward_model
from underhood.recipes.reward_tuning import load_reward_model
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stage_jobs import load_model, planned_stages
from underhood.recipes.stages.registry import Stage, all_stages, stage_of_model
from underhood.recipes.start_model import BEFORE, before_stage, lineage_of
from underhood.recipes.summary import samples_side_by_side
from underhood.recipes.tuning_plan import tuning_eval_size


def evaluate_run(run: Run, *, restart: bool = False) -> ResultsTable:
    """Measures every finished model of the run, unless the same models have been measured; keeps the results."""
    if not (run.path / "plan.json").exists():
        raise UserError(f"{run.path} has no model yet", fix=_how_to_begin(run))
    clock = Clock(run)
    prepared = prepare(run, clock)
    finished: list[Stage] = []
    for stage in planned_stages(prepared.plan):
        if not run.finished(stage):
            break
        finished.append(stage)
    if not finished:
        raise UserError(f"{run.path} has no finished model", fix=_how_to_begin(run))
    if restart:
        run.forget()
    table = evaluate_all(run, prepared, finished)
    clock.note()
    return table


def _how_to_begin(run: Run) -> str:
    return f"Make one with underhood {all_stages()[0].name} {run.path}"


def evaluate_checkpoint(run: Run, path: Path) -> ResultsTable:
    """Measures one checkpoint by itself; keeps nothing."""
    prepared = prepare(run, Clock(run))
    name = path.absolute().parent.name
    stage = _before(run) if name == BEFORE else stage_of_model(name)
    if stage.scores:
        return ResultsTable.of([_evaluate_scores(run, prepared, path).results], [])
    evaluated, _ = _evaluate(load_model(run, stage.model, path), stage, prepared, run.spec, None)
    return ResultsTable.of([evaluated.results], [])


def evaluate_all(run: Run, prepared: Prepared, stages: Sequence[Stage]) -> ResultsTable:
    """Measures every stage's model and the baselines; writes the note ``results.json``.

    A stage is compared with those that its model comes from; its reward margin is against the one that it starts
    from. A run that starts from a model measures that one first.
    """
    if run.spec.from_ is not None:
        stages = [_before(run), *stages]
    saved = run.note("results")
    if saved is not None:
        table = ResultsTable.from_json(saved["table"], where="results.json")
        if [results.stage for results in table.stages] == [stage.model for stage in stages]:
            return table
    started, writing = time.perf_counter(), [stage for stage in stages if not stage.scores]
    run.log.event("eval", "start")
    own = run.spec.from_ is None or run.spec.continue_pretraining  # others have read more than this text
    baseline = baselines(prepared.documents, prepared.held_out, prepared.tokenizer) if own else []
    results, samples = [], {}
    pair_scores: dict[str, PairLogProbs | None] = {}
    examples: list[dict[str, str]] = []
    refused: dict[str, str] | None = None
    lineage: dict[str, list[str]] = {}
    for stage in stages:
        lineage[stage.model] = lineage_of(run.spec, prepared.plan, stage.model)
        reference = pair_scores.get(lineage[stage.model][-1]) if lineage[stage.model] else None
        model = load_model(run, stage.model)
        if stage.scores:
            evaluated, pair_scores[stage.model] = _evaluate_scores(run, prepared), None
        else:
            evaluated, pair_scores[stage.model] = _evaluate(model, stage, prepared, run.spec, reference)
        if evaluated.left_out:
            short = f"the {stage.model} model's context of {model.context_length:,} tokens"
            run.log.event("eval", "note", text=f"questions left out, too long for {short}: {evaluated.left_out:,}")
        results.append(evaluated.results)
        if not stage.scores:
            samples[stage.model] = evaluated.samples
        figures = {measured.name: measured.value for measured in evaluated.results.measurements}
        run.log.event("eval", "eval", model=stage.model, **figures)
        retriever = run_retriever(run.spec, prepared)
        if stage is writing[-1] and stage.chats and retriever is not None:
            inputs = (model, prepared.tokenizer, retriever, prepared.data.grounded, prepared.template)
            examples, refused = showcase(*inputs), refused_example(*inputs)
            refused = None if refused is None else refused | {"model": stage.model}
    table = ResultsTable.of(results, baseline, lineage=lineage)
    seconds = time.perf_counter() - started
    shown = samples_side_by_side(prepared.data, samples)
    note = {"table": table.to_json(), "samples": shown, "examples": examples, "refused": refused, "seconds": seconds}
    run.write_note("results", note)
    run.log.event("eval", "end", seconds=seconds)
    return table


def _before(run: Run) -> Stage:
    path = newest(run.checkpoints(BEFORE))
    if path is None:
        raise UserError(f"{run.path} has not kept the model that it starts from", fix="Go on with build --resume")
    return before_stage(bool(read_checkpoint(path).state["chats"]))


def _eval_size(spec: BuildSpec, prepared: Prepared) -> EvalSize:
    return EvalSize.for_minutes(spec.minutes) if spec.from_ is None else tuning_eval_size(spec, prepared.plan)


def _evaluate_scores(run: Run, prepared: Prepared, path: Path | None = None) -> Evaluated:
    """Measures a reward model, which writes nothing."""
    device = prepared.hardware.device
    judge = load_reward_model(path or run.path, device=device.name)
    with device.autocast():
        return evaluate_reward_model(
            judge.model,
            prepared.tokenizer,
            prepared.data.held_out_pairs,
            _eval_size(run.spec, prepared).pairs,
            seed=run.spec.seed,
            template=prepared.template,
        )


def _evaluate(
    model: BuiltModel, stage: Stage, prepared: Prepared, spec: BuildSpec, reference: PairLogProbs | None
) -> tuple[Evaluated, PairLogProbs | None]:
    device = prepared.hardware.device
    with device.autocast():
        return evaluate(
            stage,
            model.to(device.torch),
            prepared.data,
            prepared.held_out,
            prepared.tokenizer,
            _eval_size(spec, prepared),
            seed=spec.seed,
            beta=getattr(spec.stage_settings(stage), "beta", REWARD_BETA),
            reference=reference,
            retriever=run_retriever(spec, prepared),
            template=prepared.template,
            device=device.torch,
        )
