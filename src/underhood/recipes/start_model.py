"""The model that a build starts from (`underhood build --from`), kept in its run as the first checkpoint.

The run then holds all that it needs: the model as it was, its tokenizer and chat template, and what was trained.
"""

from __future__ import annotations

from typing import Any

from underhood.core.checkpoint import module_tensors, newest, write_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.recipes.published_run import no_template_fix
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import DataSize, Stage, all_stages, stage_of_model
from underhood.recipes.tuned_run import copy_tokenizer_files
from underhood.train.plan import Plan

BEFORE = "before"
"""Name of the model that a run started from, beside those of its stages."""


def keep_start_model(run: Run) -> LoadedModel:
    """The model that the run starts from; the first call copies it into the run.

    Raises:
        UserError: it can't be read, has another shape than a decoder, or lacks a tokenizer or a chat template.
    """
    if newest(run.checkpoints(BEFORE)) is None:
        assert run.spec.from_ is not None
        loaded = load(run.spec.from_, progress=run.log.counter("tokenizer", "reading the model"))
        loaded.decoder  # noqa: B018  # refuses other kinds of models
        if problem := getattr(loaded.tokenizer, "error", None):
            raise problem
        copy_tokenizer_files(loaded, run.path)
        if run.template is None:
            raise UserError(
                f"{run.spec.from_} has no chat template, and its tokenizer no marks for turns",
                fix=no_template_fix(loaded.run),
            )
        state = {
            "spec": to_json(loaded.spec, tagged=True),
            "model": BEFORE,
            "order": -1,
            "chats": loaded.chats,
            "tokenizer": run.tokenizer_state,
            "step": 0,
            "steps": 0,
        }
        write_checkpoint(run.checkpoints(BEFORE), 0, {"model": module_tensors(loaded.model)}, state)
    return load(run.path, BEFORE)


def source_model(spec: BuildSpec, plan: Plan, stage: Stage) -> str | None:
    """The model that a stage of a run trains: that of the stage before it in the plan, or the one the run starts from.

    None for a fresh model.
    """
    if stage.starts_from is None:
        return None if spec.from_ is None else BEFORE
    before = stage_of_model(stage.starts_from)
    if spec.from_ is not None and plan.find(before.name) is None:
        return source_model(spec, plan, before)
    return before.model


def lineage_of(spec: BuildSpec, plan: Plan, model: str) -> list[str]:
    """The models that a model of the run comes from, the first first."""
    stage = next((stage for stage in all_stages() if stage.model == model), None)
    source = None if stage is None else source_model(spec, plan, stage)
    return [] if source is None else [*lineage_of(spec, plan, source), source]


def _untrained(*_: Any) -> Any:
    raise AssertionError("the model that a run starts from is not trained")


def before_stage(chats: bool) -> Stage:
    """The model that a run starts from as a stage, so that it is measured as the others are.

    Args:
        chats: whether it answers in chat form.
    """
    return Stage(
        name=BEFORE,
        model=BEFORE,
        starts_from=None,
        title="Before",
        short_title="Before",
        model_title="Before",
        purpose="as it was",
        command="",
        help="",
        model_description="as it was before training",
        data_name="",
        colour=("#62666d", "#a4a8ae"),
        terminal_colour="grey62",
        share=0.0,
        objective=_untrained,
        data_size=lambda data, tokenizer: DataSize(tokens=0),
        chats=chats,
    )
