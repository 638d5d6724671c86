"""Conversation files for supervised fine-tuning, in four common formats.

Four forms are known by the fields of a record:

=============  ====================================================  =============================================
form           record                                                comes from
=============  ====================================================  =============================================
``messages``   ``{"messages": [{"role": …, "content": …}, …]}``      OpenAI's chat files; most sets of today
``sharegpt``   ``{"conversations": [{"from": …, "value": …}, …]}``   ShareGPT, Vicuna, OpenHermes
``alpaca``     ``{"instruction": …, "input": …, "output": …}``       Stanford Alpaca, Dolly (context, response)
``pairs``      ``{"prompt": …, "response": …}``                      many; also completion, question and answer
=============  ====================================================  =============================================

A file is JSON lines, one JSON array, or Parquet. Its first record decides the form; a record of another form is a
mistake, named by its line (by its number in an array or a table).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.data.files import decode, read_bytes
from underhood.data.record_files import json_lines, parquet_rows
from underhood.text.chat import ROLES

SUPPORTED = (".jsonl", ".json", ".parquet")

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
"""ShareGPT's names for who speaks."""

ALPACA = (("instruction", "input", "output"), ("instruction", "context", "response"))
PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("question", "response"),
    ("input", "output"),
)
FORMS = (
    'messages: {"messages": [{"role": "user", "content": …}, …]}',
    'ShareGPT: {"conversations": [{"from": "human", "value": …}, …]}',
    'Alpaca: {"instruction": …, "input": …, "output": …}',
    'pairs: {"prompt": …, "response": …}',
)


@dataclass(frozen=True)
class Conversation:
    """One conversation: its messages and where it was read.

    Attributes:
        messages: ``{"role": "system" | "user" | "assistant", "content": str}`` in order; at least one is the
            assistant's.
        source: file and line, e.g. ``"chat.jsonl line 3"``.
    """

    messages: tuple[dict[str, str], ...]
    source: str


@dataclass(frozen=True)
class Conversations:
    """The conversations of one file, and in which form they were found.

    Attributes:
        form: ``messages``, ``sharegpt``, ``alpaca`` or ``pairs``, with the fields, for people to read.
    """

    examples: tuple[Conversation, ...]
    form: str

    def __len__(self) -> int:
        return len(self.examples)


def read_conversations(path: Path) -> Conversations:
    """All conversations of a file.

    Raises:
        UserError: no such file, an unknown ending or form, or a bad record, which is named by its line.
    """
    kind = path.suffix.lower()
    if kind not in SUPPORTED:
        raise UserError(
            f"can't read conversations from {path}", expected=" or ".join(SUPPORTED), got=kind or "no ending"
        )
    read: Callable[[Any, str], list[dict[str, str]]] | None = None
    form = ""
    conversations = []
    for where, record in _records(path, kind):
        if read is None:
            form, read = _form(record, where)
        conversations.append(Conversation(_checked(read(record, where), where), where.replace(str(path), path.name, 1)))
    if not conversations:
        raise UserError(f"{path} holds no conversation")
    return Conversations(tuple(conversations), form)


def split_conversations(
    conversations: Sequence[Conversation], *, shares: Sequence[float], seed: int
) -> list[list[Conversation]]:
    """Deals conversations into parts of about these shares, at random; what opens alike stays in one part.

    Two conversations whose first user messages are the same (up to white space and case) never fall into different
    parts: else a model would be examined in what it was taught.

    Args:
        shares: positive, adding up to 1, e.g. ``(0.85, 0.05, 0.1)``.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ValueError(f"shares must be positive and add up to 1, got {tuple(shares)}")
    groups: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        groups.setdefault(_opening(conversation), []).append(conversation)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    wanted = [share * len(conversations) for share in shares]
    parts: list[list[Conversation]] = [[] for _ in shares]
    for group in order:
        # Into the part that lacks most: small parts fill exactly, and none stays empty for want of luck.
        neediest = max(range(len(parts)), key=lambda k: (wanted[k] - len(parts[k])) / max(wanted[k], 1e-9))
        parts[neediest].extend(group)
    return parts


def _opening(conversation: Conversation) -> str:
    first = next((message["content"] for message in conversation.messages if message["role"] == "user"), "")
    return " ".join(first.split()).casefold()


def _records(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    """Every record with its place in words."""
    if kind == ".parquet":
        yield from parquet_rows(path)
        return
    text = decode(read_bytes(path), path)
    if kind == ".json" or text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {error.lineno} is not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(records, list):
            raise UserError(f"{path} is not a list of records", expected="a JSON array", got=type(records).__name__)
        for number, record in enumerate(records, start=1):
            yield f"{path} record {number}", record
        return
    yield from json_lines(path)


def _form(record: Any, where: str) -> tuple[str, Callable[[Any, str], list[dict[str, str]]]]:
    """The form of a file, from its first record: its name, and how such a record is read."""
    if isinstance(record, Mapping):
        if "messages" in record:
            return "messages (role, content)", partial(_turns, field="messages", speaker="role", content_key="content")
        if "conversations" in record:
            turns = record["conversations"]
            theirs = isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "role" in turns[0]
            speaker, content_key = ("role", "content") if theirs else ("from", "value")
            name = f"sharegpt (conversations with {speaker}, {content_key})"
            return name, partial(_turns, field="conversations", speaker=speaker, content_key=content_key)
        for question_key, more, answer in ALPACA:
            if question_key in record and answer in record:
                read = partial(_alpaca, question_key=question_key, more=more, answer=answer)
                return f"alpaca ({question_key}, {more}, {answer})", read
        for question_key, answer in PAIRS:
            if question_key in record and answer in record:
                return f"pairs ({question_key}, {answer})", partial(_pair, question_key=question_key, answer=answer)
    got = (
        f"the fields {', '.join(map(str, record)) or 'none'}" if isinstance(record, Mapping) else type(record).__name__
    )
    raise UserError(f"{where} is not a conversation", got=got, fix=f"Known forms are {'; '.join(FORMS)}")


def _turns(record: Any, where: str, field: str, speaker: str, content_key: str) -> list[dict[str, str]]:
    turns = _field(record, field, where)
    if not isinstance(turns, (list, tuple)) or not turns:
        raise UserError(f"{where}: {field} is not a list of turns", got=_short(turns))
    messages = []
    for number, turn in enumerate(turns, start=1):
        where_turn = f"{where}, turn {number}"
        role, content = _field(turn, speaker, where_turn), _field(turn, content_key, where_turn)
        if isinstance(content, list):  # OpenAI's parts: [{"type": "text", "text": …}]
            content = "".join(_text_part(piece, where_turn) for piece in content)
        if role not in SPEAKERS:
            near = nearest(str(role), [*SPEAKERS])
            fix = f"Did you mean {near}?" if near else None
            raise UserError(
                f"{where_turn} has an unknown {speaker}", expected=" | ".join(ROLES), got=repr(role), fix=fix
            )
        messages.append({"role": SPEAKERS[role], "content": _text(content, content_key, where_turn)})
    return messages


def _alpaca(record: Any, where: str, question_key: str, more: str, answer: str) -> list[dict[str, str]]:
    question = _text(_field(record, question_key, where), question_key, where)
    context = _text(record.get(more) or "", more, where)
    if context.strip():
        question = f"{question}\n\n{context}"
    return [_message("user", question), _message("assistant", _text(_field(record, answer, where), answer, where))]


def _pair(record: Any, where: str, question_key: str, answer: str) -> list[dict[str, str]]:
    return [
        _message("user", _text(_field(record, question_key, where), question_key, where)),
        _message("assistant", _text(_field(record, answer, where), answer, where)),
    ]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _checked(messages: list[dict[str, str]], where: str) -> tuple[dict[str, str], ...]:
    """A conversation that something can be learnt from: it says what `text.chat` can render, and has an answer."""
    if any(message["role"] == "system" for message in messages[1:]):
        raise UserError(f"{where} has a system message inside", expected="one at the start only")
    for before, after in pairwise(messages):
        if before["role"] == after["role"]:
            raise UserError(f"{where}: the {after['role']} speaks twice in a row", expected="turns that alternate")
    if not any(message["role"] == "assistant" for message in messages):
        raise UserError(f"{where} has no answer", expected="at least one assistant turn")
    if not any(message["content"].strip() for message in messages if message["role"] == "assistant"):
        raise UserError(f"{where}: the answer is empty", expected="text in an assistant turn")
    return tuple(messages)


def _field(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, Mapping):
        raise UserError(f"{where} is not a JSON object", expected=f"an object with {name}", got=_short(record))
    if name not in record:
        near = nearest(name, [str(key) for key in record])
        fix = f"Is {near!r} a slip?" if near else f"It has: {', '.join(map(str, record)) or 'nothing'}"
        raise UserError(f"{where} lacks the field {name!r} that the first record has", fix=fix)
    return record[name]


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} is not text", expected="a string", got=_short(value))
    return value


def _text_part(piece: Any, where: str) -> str:
    if not isinstance(piece, Mapping) or piece.get("type") != "text":
        raise UserError(f"{where} holds something other than text", got=_short(piece), fix="Leave such records out")
    return _text(piece.get("text"), "text", where)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
