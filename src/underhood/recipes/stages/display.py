"""Display of stages and their models: titles, colours and marks for report, pages and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underhood.recipes.stages.registry import all_stages, find_model, find_stage

PLAIN = "plain"
"""CSS class of what belongs to no training stage."""

OTHER_TITLES = {"data": "Data", "tokenizer": "Tokenizer", "plan": "Plan", "eval": "Evaluate", "report": "Report"}
OTHER_MODELS = {"before": "Before"}
"""Titles of models that no stage makes: the one that a run starts from."""

OTHER_PURPOSES = {"data": "text, cleaned", "tokenizer": "text to numbers", "eval": "on unseen text"}


def trained_stages() -> tuple[str, ...]:
    """The names of the training stages."""
    return tuple(stage.name for stage in all_stages())


def drawn_stages() -> tuple[str, ...]:
    """The stages that the report's pipeline draws."""
    return ("data", "tokenizer", *trained_stages(), "eval")


def job_stages() -> tuple[str, ...]:
    """All stages of a build in order."""
    return ("data", "tokenizer", "plan", *trained_stages(), "eval", "report")


def title_of(stage: str) -> str:
    """A stage as a heading: ``Fine-tuning (SFT)``."""
    record = find_stage(stage)
    return record.title if record else OTHER_TITLES.get(stage, stage)


def short_title_of(stage: str) -> str:
    """A stage where there is little room: ``SFT``."""
    record = find_stage(stage)
    return record.short_title if record else OTHER_TITLES.get(stage, stage.capitalize())


def purpose_of(stage: str) -> str:
    """What a stage is for, in two or three words."""
    record = find_stage(stage)
    return record.purpose if record else OTHER_PURPOSES.get(stage, "")


def hue_of(stage: str) -> str:
    """The CSS class of a stage's colour: its model's name."""
    record = find_stage(stage)
    return record.model if record else PLAIN


def model_hue(model: str) -> str:
    """The CSS class of a model's colour."""
    return model if find_model(model) else PLAIN


def model_title(model: str) -> str:
    """A model where there is little room: ``Base``."""
    record = find_model(model)
    return record.model_title if record else OTHER_MODELS.get(model, model)


def best_weights(event: Mapping[str, Any]) -> str:
    """Which weights were kept where the last ones were not the best."""
    return (
        f"kept the weights of step {event['step']:,}, the best on held-out text (loss {event['loss']:.3f}; "
        f"{event['last_loss']:.3f} at step {event['last_step']:,})"
    )


def marks() -> dict[str, str]:
    """SVG paths in a 12 × 12 box by CSS class: the second cue beside the colour."""
    return {stage.model: stage.mark for stage in all_stages()}


def stage_css() -> str:
    """The rules that give every stage its colour."""
    return "\n".join(f".{stage.model} {{ --hue: light-dark({', '.join(stage.colour)}); }}" for stage in all_stages())


def page_data() -> list[dict[str, Any]]:
    """The stages for the pages' script."""
    return [
        {
            "stage": stage.name,
            "model": stage.model,
            "title": stage.title,
            "model_title": stage.model_title,
            "purpose": stage.purpose,
            "mark": stage.mark,
            "chats": stage.chats,
            "first_curves": stage.first_curves,
        }
        for stage in all_stages()
    ]
