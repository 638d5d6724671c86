"""Numbers and events in words, as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def human_time(seconds: float) -> str:
    """Seconds as a person says them: ``0.42 s``, ``12 s``, ``2 min 05 s``, ``1 h 04 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def human_count(number: float) -> str:
    """A count in three digits: ``950``, ``41.2 k``, ``3.30 M``, ``7.24 B`` (thousand, million, billion)."""
    return _three_digits(number, ("", " k", " M", " B", " T"), 1000)


def human_bytes(number: float) -> str:
    """A size in three digits of binary units: ``950 B``, ``2.29 MiB``."""
    return _three_digits(number, (" B", " KiB", " MiB", " GiB", " TiB"), 1024)


def _three_digits(number: float, units: Sequence[str], base: int) -> str:
    size, unit = float(number), 0
    while abs(size) >= (999.5 if unit else base - 0.5) and unit < len(units) - 1:
        size, unit = size / base, unit + 1
    digits = 0 if unit == 0 or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{size:,.{digits}f}{units[unit]}"


def beginning(event: Mapping[str, Any]) -> str:
    """What a stage is about to do, from its ``start`` event."""
    said = {
        "data": lambda: f"reading {event['data']}",
        "tokenizer": lambda: f"learning {event['vocab_size']:,} tokens",
        "plan": lambda: "timing this machine",
        "eval": lambda: "measuring every model and the baselines",
        "report": lambda: "writing the page",
    }
    if "steps" in event and "seconds_planned" in event:
        return f"{event['steps']:,} steps, about {human_time(event['seconds_planned'])}"
    try:
        return said[str(event["stage"])]()
    except KeyError:  # a log of somebody else's
        return facts_of(event)


def ending(event: Mapping[str, Any]) -> str:
    """How a stage ended, from its ``end`` event."""
    took = f"done in {human_time(event['seconds'])}"
    try:
        words = _ENDINGS.get(str(event["stage"]), facts_of)(event)
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


def facts_of(event: Mapping[str, Any]) -> str:
    """The free-form keys of any event: ``documents 670 · bytes 2,310,482``."""
    hidden = {"time", "stage", "kind", "seconds", "step"}
    shown = {key: value for key, value in event.items() if key not in hidden and not isinstance(value, (dict, list))}
    return " · ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in shown.items())


def _data(event: Mapping[str, Any]) -> str:
    dropped = event["dropped"]
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    words = [f"{event['documents']:,} documents, {human_bytes(event['bytes'])}"]
    words.append(f"left out {event['documents'] - event['kept']:,} ({left_out})" if left_out else "none left out")
    return " · ".join([*words, f"digest {event['digest'][:12]}"])


def _tokenizer(event: Mapping[str, Any]) -> str:
    return (
        f"{event['vocab_size']:,} tokens of {event['bytes_per_token']:.2f} bytes on average · the text is "
        f"{human_count(event['train_tokens'])} of them to train on, {human_count(event['held_out_tokens'])} held out"
    )


def _plan(event: Mapping[str, Any]) -> str:
    return f"{human_count(event['parameters'])} parameters. {event['reason']}"


def _training(event: Mapping[str, Any]) -> str:
    loss = "" if event["loss"] is None else f" · loss {event['loss']:.3f}"
    return f"{human_count(event['tokens'])} tokens{loss}"


_ENDINGS = {
    "data": _data,
    "tokenizer": _tokenizer,
    "plan": _plan,
    "pretrain": _training,
    "sft": _training,
    "dpo": _training,
}


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
