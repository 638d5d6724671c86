"""Requests of the stages of a run to its plan."""

from __future__ import annotations

from collections.abc import Sequence

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import DataSize, Stage, get_stage
from underhood.recipes.training_data import StageData
from underhood.train.plan import Plan, StagePlan, StageRequest, plan_stage


def stage_request(spec: BuildSpec, stage: Stage, size: DataSize) -> StageRequest:
    """A stage's request: its share of the time, its data, and the steps that the user has fixed."""
    return StageRequest(
        stage=stage.name,
        share=stage.share,
        tokens=size.tokens,
        row_tokens=size.row_tokens,
        epochs=stage.epochs,
        cost=stage.cost,
        steps=spec.stage_settings(stage).steps,
    )


def check_used_stages(spec: BuildSpec, requests: Sequence[StageRequest]) -> None:
    """Raises a UserError where the data gives nothing for a stage whose model another one is to use."""
    planned = {request.stage for request in requests}
    for stage in map(get_stage, planned):
        for used in map(get_stage, spec.uses(stage)):
            if used.name not in planned:
                raise UserError(
                    f"the text gives no {used.data_name} for the {used.model} model, which {stage.name} learns from",
                    fix=f"Leave out --{stage.name}-reward model",
                )


def plan_added_stage(
    spec: BuildSpec, plan: Plan, stage: Stage, data: StageData, tokenizer: Tokenizer
) -> StagePlan | None:
    """The plan of a stage that the run was begun without, from the share of its minutes that the stage would have had.

    None where the text gives no data for it.
    """
    size = stage.data_size(data, tokenizer)
    if not size.tokens:
        return None
    first = plan.stages[0]
    assert first.context_length is not None
    seconds = 60 * spec.minutes * stage.share
    return plan_stage(
        stage_request(spec, stage, size),
        seconds,
        batch_size=first.batch_size,
        context_length=first.context_length,
        speed=plan.tokens_per_second,
    )
