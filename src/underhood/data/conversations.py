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
mistake, named by its line (by its number in an array or a table). Fields beside the turns: see `data.chat_fields`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from underhood.core.errors import UserError, nearest
from underhood.data.chat_fields import (
    LOSS_FIELDS,
    REASONING,
    check_fields,
    history_of,
    is_empty,
    is_learnt,
    short,
    system_of,
    tool_calls_of,
    tools_of,
)
from underhood.data.record_files import json_records, parquet_rows
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
    "developer": "system",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}
"""ShareGPT's and OpenAI's names for who speaks; a ``function_call`` is an answer that calls."""

TURN_FIELDS = frozenset({"tool_calls", "tool_call_id", "name", *LOSS_FIELDS, *REASONING})
RECORD_FIELDS = frozenset({"system", "history", "tools"})

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
        messages: ``{"role": "system" | "user" | "assistant" | "tool", "content": str}`` in order, with ``tool_calls``,
            ``reasoning_content`` and their like where the record has them; at least one is the assistant's.
        source: file and line, e.g. ``"chat.jsonl line 3"``.
        not_learnt: answers that carry no loss, counted among the answers from 0.
        tools: descriptions of functions.
    """

    messages: tuple[dict[str, Any], ...]
    source: str
    not_learnt: frozenset[int] = frozenset()
    tools: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class Conversations:
    """The conversations of one file, and in which form they were found.

    Attributes:
        form: ``messages``, ``sharegpt``, ``alpaca`` or ``pairs``, with the fields, for people to read.
        unused: fields that nothing uses, with how many records or turns have them.
    """

    examples: tuple[Conversation, ...]
    form: str
    unused: dict[str, int] = field(default_factory=dict)

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
    form: _Form | None = None
    unused: Counter[str] = Counter()
    conversations = []
    for where, record in _records(path, kind):
        form = form or _form(record, where)
        conversation = form.conversation(record, where, unused)
        conversations.append(replace(conversation, source=where.replace(str(path), path.name, 1)))
    if form is None:
        raise UserError(f"{path} holds no conversation")
    return Conversations(tuple(conversations), form.name, dict(unused))


class Conversing(Protocol):
    """Anything that begins with messages."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...


C = TypeVar("C", bound=Conversing)


def split_conversations(conversations: Sequence[C], *, shares: Sequence[float], seed: int) -> list[list[C]]:
    """Deals conversations into parts of about these shares, at random; what opens alike stays in one part.

    Two conversations whose first user messages are the same (up to white space and case) never fall into different
    parts: else a model would be examined in what it was taught.

    Args:
        shares: positive, adding up to 1, e.g. ``(0.85, 0.05, 0.1)``.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ValueError(f"shares must be positive and add up to 1, got {tuple(shares)}")
    groups: dict[str, list[C]] = {}
    for conversation in conversations:
        groups.setdefault(_opening(conversation), []).append(conversation)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    wanted = [share * len(conversations) for share in shares]
    parts: list[list[C]] = [[] for _ in shares]
    for group in order:
        # Into the part that lacks most: small parts fill exactly, and none stays empty for want of luck.
        neediest = max(range(len(parts)), key=lambda k: (wanted[k] - len(parts[k])) / max(wanted[k], 1e-9))
        parts[neediest].extend(group)
    return parts


def _opening(conversation: Conversing) -> str:
    first = next((message["content"] for message in conversation.messages if message["role"] == "user"), "")
    return " ".join(first.split()).casefold()


def _records(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    """Every record with its place in words."""
    if kind == ".parquet":
        yield from parquet_rows(path)
        return
    yield from json_records(path)


Turn = tuple[dict[str, Any], bool]
"""A message, and whether it carries loss."""


@dataclass(frozen=True)
class _Form:
    """How the records of a file are read.

    Attributes:
        name: for people.
        fields: those that hold the turns.
        read: the turns of a record.
        has_history: whether turns may come before in a field ``history``.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[Any, str, Counter[str]], list[Turn]]
    has_history: bool = True

    def conversation(self, record: Any, where: str, unused: Counter[str]) -> Conversation:
        """The record as a conversation.

        Raises:
            UserError: it is of another form, or has a field that can't be followed.
        """
        turns = self.read(record, where, unused)
        check_fields(record, (*self.fields, *RECORD_FIELDS), where, unused)
        before = history_of(record, where)
        if before and not self.has_history:
            raise UserError(f"{where} has a history beside its turns", fix=f"Write those turns into {self.fields[0]}")
        turns = [
            turn for question, answer in before for turn in (_said("user", question), _said("assistant", answer))
        ] + turns
        if (system := system_of(record, where)) is not None:
            if turns[0][0]["role"] == "system":
                raise UserError(f"{where} has two system prompts: a field and a turn", fix="Leave one of them out")
            turns.insert(0, _said("system", system))
        messages = _checked([message for message, _ in turns], where)
        learnt = [learns for message, learns in turns if message["role"] == "assistant"]
        if not any(learnt):
            raise UserError(f"{where} has no answer to learn: all have weight 0", fix="Leave such records out")
        skipped = frozenset(number for number, learns in enumerate(learnt) if not learns)
        return Conversation(messages, where, skipped, tools_of(record, where))


def _form(record: Any, where: str) -> _Form:
    """The form of a file, from its first record."""
    if isinstance(record, Mapping):
        if "messages" in record:
            read = partial(_turns, field="messages", speaker="role", content_key="content")
            return _Form("messages (role, content)", ("messages",), read, has_history=False)
        if "conversations" in record:
            turns = record["conversations"]
            theirs = isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "role" in turns[0]
            speaker, content_key = ("role", "content") if theirs else ("from", "value")
            read = partial(_turns, field="conversations", speaker=speaker, content_key=content_key)
            name = f"sharegpt (conversations with {speaker}, {content_key})"
            return _Form(name, ("conversations",), read, has_history=False)
        for names in ALPACA:
            question_key, more, answer = names
            if question_key in record and answer in record:
                read = partial(_alpaca, question_key=question_key, more=more, answer=answer)
                return _Form(f"alpaca ({', '.join(names)})", names, read)
        for names in PAIRS:
            question_key, answer = names
            if question_key in record and answer in record:
                read = partial(_pair, question_key=question_key, answer=answer)
                return _Form(f"pairs ({', '.join(names)})", names, read)
    got = (
        f"the fields {', '.join(map(str, record)) or 'none'}" if isinstance(record, Mapping) else type(record).__name__
    )
    raise UserError(f"{where} is not a conversation", got=got, fix=f"Known forms are {'; '.join(FORMS)}")


def _turns(record: Any, where: str, unused: Counter[str], field: str, speaker: str, content_key: str) -> list[Turn]:
    turns = _field(record, field, where)
    if not isinstance(turns, (list, tuple)) or not turns:
        raise UserError(f"{where}: {field} is not a list of turns", got=short(turns))
    return [
        _turn(turn, f"{where}, turn {number}", unused, speaker, content_key)
        for number, turn in enumerate(turns, start=1)
    ]


def _turn(turn: Any, where: str, unused: Counter[str], speaker: str, content_key: str) -> Turn:
    theirs = _field(turn, speaker, where)
    if theirs not in SPEAKERS:
        near = nearest(str(theirs), [*SPEAKERS])
        fix = f"Did you mean {near}?" if near else None
        raise UserError(f"{where} has an unknown {speaker}", expected=" | ".join(ROLES), got=repr(theirs), fix=fix)
    role = SPEAKERS[theirs]
    message: dict[str, Any] = {"role": role}
    calls = turn.get("tool_calls")
    if not is_empty(calls):
        message |= {"content": "", "tool_calls": tool_calls_of(calls, where)}
    content = turn.get(content_key) if "tool_calls" in message else _field(turn, content_key, where)
    if theirs == "function_call":
        message |= {"content": "", "tool_calls": tool_calls_of(content, where)}
    elif content is not None or "tool_calls" not in message:
        if isinstance(content, list):  # OpenAI's parts: [{"type": "text", "text": …}]
            content = "".join(_text_part(piece, where) for piece in content)
        message["content"] = _text(content, content_key, where)
    message |= {name: turn[name] for name in (*REASONING, "tool_call_id") if not is_empty(turn.get(name))}
    if role == "tool" and not is_empty(turn.get("name")):
        message["name"] = turn["name"]
    elif not is_empty(turn.get("name")):
        unused["name"] += 1
    check_fields(turn, (speaker, content_key, *TURN_FIELDS), where, unused)
    return message, is_learnt(turn, role, where)


def _alpaca(record: Any, where: str, unused: Counter[str], question_key: str, more: str, answer: str) -> list[Turn]:
    question = _text(_field(record, question_key, where), question_key, where)
    context = _text(record.get(more) or "", more, where)
    if context.strip():
        question = f"{question}\n\n{context}"
    return [_said("user", question), _said("assistant", _text(_field(record, answer, where), answer, where))]


def _pair(record: Any, where: str, unused: Counter[str], question_key: str, answer: str) -> list[Turn]:
    return [
        _said("user", _text(_field(record, question_key, where), question_key, where)),
        _said("assistant", _text(_field(record, answer, where), answer, where)),
    ]


def _said(role: str, content: str) -> Turn:
    return {"role": role, "content": content}, role == "assistant"


def _checked(messages: list[dict[str, Any]], where: str) -> tuple[dict[str, Any], ...]:
    """A conversation that something can be learnt from: one that templates can write, with an answer."""
    if any(message["role"] == "system" for message in messages[1:]):
        raise UserError(f"{where} has a system message inside", expected="one at the start only")
    for before, after in pairwise(messages):
        if before["role"] == after["role"] != "tool":
            raise UserError(f"{where}: the {after['role']} speaks twice in a row", expected="turns that alternate")
        if after["role"] == "tool" and not (before["role"] == "tool" or "tool_calls" in before):
            raise UserError(f"{where}: a tool answers that nobody called", expected="tool_calls in the turn before")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise UserError(f"{where} has no answer", expected="at least one assistant turn")
    if not any(message["content"].strip() or "tool_calls" in message for message in answers):
        raise UserError(f"{where}: the answer is empty", expected="text in an assistant turn")
    return tuple(messages)


def _field(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, Mapping):
        raise UserError(f"{where} is not a JSON object", expected=f"an object with {name}", got=short(record))
    if name not in record:
        near = nearest(name, [str(key) for key in record])
        fix = f"Is {near!r} a slip?" if near else f"It has: {', '.join(map(str, record)) or 'nothing'}"
        raise UserError(f"{where} lacks the field {name!r} that the first record has", fix=fix)
    return record[name]


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} is not text", expected="a string", got=short(value))
    return value


def _text_part(piece: Any, where: str) -> str:
    if not isinstance(piece, Mapping) or piece.get("type") != "text":
        raise UserError(f"{where} holds something other than text", got=short(piece), fix="Leave such records out")
    return _text(piece.get("text"), "text", where)
