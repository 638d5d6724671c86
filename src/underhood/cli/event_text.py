"""Events of a run log as lines of text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from underhood.recipes.stages.registry import find_stage
from underhood.ui.formatting import count, duration, size


def beginning(event: Mapping[str, Any]) -> str:
    """What a stage is about to do, from its ``start`` event."""
    texts = {
        "data": lambda: f"reading {event['data']}",
        "tokenizer": lambda: f"learning {event['vocab_size']:,} tokens",
        "plan": lambda: "timing this machine",
        "eval": lambda: "measuring every model and the baselines",
        "report": lambda: "writing the page",
    }
    if "steps" in event and "seconds_planned" in event:
        return f"{_steps(event)}, about {duration(event['seconds_planned'], ' ')}"
    if "steps" in event and "trained_parameters" in event:
        return _given_model(event)
    try:
        return texts[str(event["stage"])]()
    except KeyError:  # a log of somebody else's
        return facts_of(event)


def _given_model(event: Mapping[str, Any]) -> str:
    """The start of a given model's training: how long, what learns, and what else its log says."""
    adapters = f", LoRA of rank {event['lora_rank']}" if event.get("lora_rank") else ""
    learning = f"{count(event['trained_parameters'], ' ')} parameters learn{adapters}"
    rest = {key: value for key, value in event.items() if key not in ("steps", "trained_parameters", "lora_rank")}
    return " · ".join(filter(None, [_steps(event), learning, facts_of(rest)]))


def _steps(event: Mapping[str, Any]) -> str:
    return "1 step" if event["steps"] == 1 else f"{event['steps']:,} steps"


def ending(event: Mapping[str, Any]) -> str:
    """How a stage ended, from its ``end`` event."""
    took = f"done in {duration(event['seconds'], ' ')}"
    try:
        stage = str(event["stage"])
        words = (_training if find_stage(stage) else _ENDINGS.get(stage, facts_of))(event)
    except KeyError:
        words = facts_of(event)
    return " · ".join(filter(None, [took, words]))


def measured(event: Mapping[str, Any]) -> str:
    """An ``eval`` event: of a whole evaluation the first figures, for the table follows."""
    if "model" in event:
        figures = {key: value for key, value in event.items() if isinstance(value, float) and key != "time"}
        shown = [f"{name} {value:.3g}" for name, value in list(figures.items())[:2]]
        return f"{event['model']}: {' · '.join(shown)}"
    return f"step {event['step']:,} · {facts_of(event)}" if "step" in event else facts_of(event)


SAMPLE_LINES = 2
"""Lines of a sample that the terminal shows."""


def sample_lines(event: Mapping[str, Any], width: int) -> list[str]:
    """What a model wrote during its training, line breaks as ⏎, cut to `SAMPLE_LINES` lines."""
    text = "".join(c if c.isprintable() else "·" for c in str(event["text"]).strip().replace("\n", " ⏎ "))
    lines = textwrap.wrap(" ".join(text.split()), width) or ["(nothing)"]
    if len(lines) > SAMPLE_LINES:
        lines = lines[:SAMPLE_LINES]
        lines[-1] = f"{lines[-1][: width - 1].rstrip()}…"
    return lines


def facts_of(event: Mapping[str, Any]) -> str:
    """The free-form keys of any event: ``documents 670 · bytes 2,310,482``."""
    hidden = {"time", "stage", "kind", "seconds", "step"}
    shown = {key: value for key, value in event.items() if key not in hidden and not isinstance(value, (dict, list))}
    return " · ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in shown.items())


def _data(event: Mapping[str, Any]) -> str:
    dropped = event["dropped"]
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items() if number)
    words = [f"{event['documents']:,} documents, {size(event['bytes'], ' ')}"]
    words.append(f"left out {event['documents'] - event['kept']:,} ({left_out})" if left_out else "none left out")
    return " · ".join([*words, f"digest {event['digest'][:12]}"])


def _tokenizer(event: Mapping[str, Any]) -> str:
    return (
        f"{event['vocab_size']:,} tokens of {event['bytes_per_token']:.2f} bytes on average · the text is "
        f"{count(event['train_tokens'], ' ')} of them to train on, {count(event['held_out_tokens'], ' ')} held out"
    )


def _plan(event: Mapping[str, Any]) -> str:
    return f"{count(event['parameters'], ' ')} parameters. {event['reason']}"


def _training(event: Mapping[str, Any]) -> str:
    loss = "" if event.get("loss") is None else f" · train {event['loss']:.3f}"
    return f"{count(event['tokens'], ' ')} tokens{loss}"


_ENDINGS = {
    "data": _data,
    "tokenizer": _tokenizer,
    "plan": _plan,
}


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
