"""Checks of the Python interface's arguments: a wrong one is the caller's mistake and says what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

from underhood.core.errors import UserError


def check_text(text: object, name: str = "text") -> None:
    """Raises a `UserError` for what is not a string."""
    if not isinstance(text, str):
        fix = "Decode it first, e.g. text.decode('utf-8')" if isinstance(text, bytes) else None
        raise UserError(f"{name} is not a string", expected="a str", got=kind_of(text), fix=fix)


def check_texts(texts: object, name: str = "texts") -> None:
    """Raises a `UserError` for what is not a sequence of strings; a single string does not count."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
        raise UserError(f"{name} is not a list", expected="a list of strings", got=kind_of(texts))
    for number, text in enumerate(texts):
        check_text(text, f"{name}[{number}]")


def check_count(value: object, name: str, least: int = 0, most: int | None = None) -> None:
    """Raises a `UserError` for what is not a whole number from `least` to `most`."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if number is None or number < least or (most is not None and number > most):
        upper = "up" if most is None else f"to {most:,}"
        raise UserError(f"{name} is out of range", expected=f"a whole number from {least} {upper}", got=repr(value))


def check_path(path: object, name: str = "run") -> None:
    """Raises a `UserError` for what names no place."""
    if not isinstance(path, (str, Path)) or not str(path).strip():
        got = "an empty one" if isinstance(path, str) else kind_of(path)
        raise UserError(f"{name} names no folder or file", expected="a folder, a file or hf:OWNER/NAME", got=got)


def check_messages(messages: object) -> None:
    """Raises a `UserError` for what is not a conversation that ends with the user's message."""
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
        raise UserError(
            "messages is not a conversation",
            expected='a question, or a list of {"role": …, "content": …}',
            got=kind_of(messages),
        )
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message or not {"content", "tool_calls"} & set(message):
            got = sorted(map(str, message)) if isinstance(message, Mapping) else kind_of(message)
            raise UserError(f"messages[{number}] is not a message", expected='{"role": …, "content": …}', got=str(got))
    if not messages or messages[-1]["role"] != "user":
        raise UserError("there is nothing to answer", expected="a conversation that ends with the user's message")


def kind_of(value: object) -> str:
    """The type of a value, in words: ``None``, ``a dict``, ``an int``."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
