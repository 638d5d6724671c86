"""Prompts to answer, with what rewards need to know of them: JSON lines, JSON or Parquet.

Every record holds a prompt: a text (``prompt``, ``question``, ``problem`` or ``instruction``) or a conversation that
ends with the user's turn (``prompt`` or ``messages``, a list of ``{"role", "content"}``). The other fields, above all
``answer``, belong to the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.chat_fields import short
from underhood.data.record_files import json_records, parquet_rows
from underhood.text.chat import Message, check_messages

FIELDS = ("prompt", "question", "problem", "instruction", "messages")
"""Names of the field that holds the prompt; the first that a file's first record has."""


@dataclass(frozen=True)
class PromptRecord:
    """A prompt and the record that it came from.

    Attributes:
        messages: the conversation; one user turn where the prompt was a text.
        record: all fields.
        where: the record's position in words, e.g. ``prompts.jsonl line 3``.
    """

    messages: tuple[Message, ...]
    record: Mapping[str, Any]
    where: str

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]


def read_prompts(path: Path) -> list[PromptRecord]:
    """All prompts of a file.

    Raises:
        UserError: no such file, or a record without a prompt; its line is named.
    """
    records = parquet_rows(path) if path.suffix.lower() == ".parquet" else json_records(path)
    field: str | None = None
    prompts: list[PromptRecord] = []
    for where, record in records:
        if not isinstance(record, Mapping):
            raise UserError(f"{where} is not a JSON object", expected="an object with a prompt", got=short(record))
        if field is None:
            field = next((name for name in FIELDS if name in record), None)
            if field is None:
                got = f"the fields {', '.join(map(str, record)) or 'none'}"
                raise UserError(f"{where} has no prompt", expected=f"one of the fields {', '.join(FIELDS)}", got=got)
        if field not in record:
            raise UserError(f"{where} lacks the field {field!r} that the first record has")
        prompts.append(PromptRecord(_messages(record[field], where), record, where))
    if not prompts:
        raise UserError(f"{path} holds no prompts")
    return prompts


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{where}: the prompt is empty")
        return ({"role": "user", "content": value},)
    if not isinstance(value, Sequence) or not value:
        raise UserError(f"{where}: the prompt is neither text nor a list of messages", got=short(value))
    try:
        check_messages(value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if value[-1]["role"] == "assistant" and len(value) > 1:  # a conversation with its answer: that is left to the model
        value = value[:-1]
    if value[-1]["role"] != "user":
        raise UserError(f"{where}: the last turn is not the user's", got=repr(value[-1]["role"]))
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in value)
