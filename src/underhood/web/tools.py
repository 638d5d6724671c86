"""Calling functions: how a model is told of them, what it may write, and how calls are read out of its text.

The form is the one that Hermes and Qwen learnt: a call is ``<tool_call>``, a JSON object with name and arguments, and
``</tool_call>``; a result comes back as ``<tool_response>``. A template that knows this form shows the functions
itself; for every other one, ours included, the system message lists them. Whichever way a call comes about, a
grammar made of the functions' schemas sees to it that it parses: a model that may call writes what it likes up to the
mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from underhood.core.errors import UserError
from underhood.infer.grammar import Grammar
from underhood.infer.json_schema import arguments_schema
from underhood.web.requests import AllowedTools, ChatRequest, ChosenTool, Function

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALLING = """( {start} )
TEXT: /(?s:.)*/
said: TEXT
marked[lazy]: TEXT {mark}
call: marked "\\n" {call} {end}
"""
"""In llguidance's Lark, text in which a call may begin: a lazy rule ends with the first mark, so from there on nothing
but a call is left. Without `several`, the answer ends with it."""

FORMATTED = """( {content} | call{several} )
call: {mark} "\\n" {call} {end}
"""
"""The same where the answer has to keep to a form: either calls or that form."""

EXPLAINED = (
    "You may call these functions, each described by one line of JSON:\n{functions}\n\n"
    'To call one, write {open}, then {{"name": its name, "arguments": an object of its arguments}} in one line of '
    "JSON, then {close}."
)

Choice = Literal["none", "auto", "required"] | str


@dataclass(frozen=True)
class Tools:
    """The functions of one request.

    Attributes:
        choice: "none", "auto", "required", or the name of the one that must be called.
        several: whether one answer may call more than once.
    """

    functions: tuple[Function, ...]
    choice: Choice
    several: bool = True

    @classmethod
    def of(cls, body: ChatRequest) -> "Tools | None":
        """What a request says about tools; None where it names none.

        Raises:
            ValueError: the choice doesn't fit the functions.
        """
        functions = tuple(tool.function for tool in body.tools or ())
        choice = body.tool_choice
        if not functions:
            if choice not in (None, "none", "auto"):
                raise ValueError("there are no tools to choose from")
            return None
        names = [function.name for function in functions]
        wanted: list[str] = []
        if isinstance(choice, ChosenTool):
            wanted = [choice.function.name]
        elif isinstance(choice, AllowedTools):
            wanted = [tool.function.name for tool in choice.allowed_tools.tools]
        for name in wanted:
            if name not in names:
                raise ValueError(f"there is no tool {name!r} among {', '.join(names)}")
        if isinstance(choice, ChosenTool):
            return cls(functions, f"={choice.function.name}", False)
        if isinstance(choice, AllowedTools):
            functions = tuple(function for function in functions if function.name in wanted)
            choice = choice.allowed_tools.mode
        return cls(functions, choice or "auto", body.parallel_tool_calls is not False)

    @property
    def named(self) -> str | None:
        """The function that must be called, if only one may."""
        return self.choice[1:] if self.choice.startswith("=") else None

    @property
    def opening(self) -> str:
        """What is put into the model's mouth, so that nothing is left to write but the forced call's own content."""
        if self.named is not None:
            return f'{OPEN}\n{{"name": {json.dumps(self.named)}, "arguments": '
        return f"{OPEN}\n" if self.choice == "required" else ""

    def grammar(self, content: Grammar | None = None) -> Grammar | None:
        """What the model may write after `opening`; None leaves it free.

        Args:
            content: what an answer that calls nothing must match; None leaves it free.

        Raises:
            UserError: a function's parameters are not a schema that a grammar can follow.
        """
        if self.choice == "none":
            return content
        calls = [
            Grammar.sequence([f'{{"name": {json.dumps(function.name)}, "arguments": ', _arguments(function), "}"])
            for function in self.functions
        ]
        if self.named is not None:
            return _arguments(next(function for function in self.functions if function.name == self.named))
        call = Grammar.any_of(calls)
        if self.choice == "required":
            return call
        mark, end = json.dumps(OPEN), json.dumps(f"\n{CLOSE}")
        if content is not None:
            several = "+" if self.several else ""
            return Grammar(
                None, FORMATTED.format(several=several, mark=mark, call=call.lark, end=end, content=content.lark)
            )
        start = "call* said" if self.several else "call | said"
        return Grammar(None, CALLING.format(start=start, mark=mark, call=call.lark, end=end))

    def described(self) -> list[dict[str, Any]]:
        """The functions as templates show them."""
        return [{"type": "function", "function": function.model_dump(exclude_none=True)} for function in self.functions]

    def explained(self) -> str:
        """The functions in words, for a system message."""
        lines = "\n".join(json.dumps(function["function"], ensure_ascii=False) for function in self.described())
        return EXPLAINED.format(functions=lines, open=OPEN, close=CLOSE)


def _arguments(function: Function) -> Grammar:
    """Grammar of a function's arguments."""
    try:
        return Grammar.json_schema(arguments_schema(function.parameters))
    except ValueError as error:
        raise UserError(f"the parameters of {function.name} can't be used: {error}") from error


@dataclass(frozen=True)
class Said:
    """A piece of an answer's plain text."""

    text: str


@dataclass(frozen=True)
class Called:
    """The beginning of call number `index`."""

    index: int
    name: str


@dataclass(frozen=True)
class Argued:
    """A piece of the arguments of call number `index`; all of them together are JSON."""

    index: int
    text: str


Event = Said | Called | Argued

HEADER = re.compile(r'\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]{1,64})"\s*,\s*"arguments"\s*:\s*(?=\{)')
LONGEST_HEADER = 200


class CallReader:
    """Turns an answer's text, as it comes, into plain text and calls.

    Text between the marks that does not call a known function stays text.

    Attributes:
        calls: how many calls there have been.
    """

    def __init__(self, tools: Tools | None):
        self.calls = 0
        self._names = {function.name for function in tools.functions} if tools and tools.choice != "none" else set()
        self._text = ""
        self._state: Literal["text", "header", "named", "arguments", "after"] = "text"
        self._end = _ObjectEnd()
        self._marked = False  # whether the call's mark was the model's own
        self._behind = False  # whether nothing but white space has come since the last call
        if self._names and tools is not None and tools.opening:
            self._state = "header" if tools.named is None else "named"
        self._named = tools.named if tools else None

    def push(self, text: str) -> Iterator[Event]:
        """What the next piece of the text makes certain."""
        self._text += text
        again = True
        while again:
            events, again = self._move()
            yield from events

    def finish(self) -> Iterator[Event]:
        """What was held back, now that nothing follows."""
        if self._state == "header":
            self._text = OPEN * self._marked + self._text
        if self._text and self._state in ("text", "header"):
            yield Said(self._text)
        self._text = ""

    def _move(self) -> tuple[list[Event], bool]:
        """One step: what it makes certain, and whether another may follow."""
        if self._state == "text":
            return self._plain()
        if self._state == "named":
            self._begin()
            return [Called(self.calls - 1, self._named or "")], True
        if self._state == "header":
            return self._header()
        if self._state == "arguments":
            end = self._end.find(self._text)
            piece = self._text[:end]
            self._text = "" if end is None else self._text[end:]
            if end is not None:
                self._state = "after"
            return [Argued(self.calls - 1, piece)] if piece else [], end is not None
        at = self._text.find(CLOSE)
        if not self._marked or at < 0:
            return [], False
        self._text, self._state, self._behind = self._text[at + len(CLOSE) :], "text", True
        return [], bool(self._text)

    def _plain(self) -> tuple[list[Event], bool]:
        if self._behind:  # white space behind a call goes with its mark, too
            self._text = self._text.lstrip()
            self._behind = not self._text
        at = self._text.find(OPEN) if self._names else -1
        if at >= 0:
            before, self._text = self._text[:at].rstrip(), self._text[at + len(OPEN) :]
            self._state, self._marked = "header", True
            return [Said(before)] if before else [], True
        certain = len(self._text) - (_overlap(self._text, OPEN) if self._names else 0)
        if self._names:  # white space in front of a call goes with its mark
            certain = len(self._text[:certain].rstrip())
        piece, self._text = self._text[:certain], self._text[certain:]
        return [Said(piece)] if piece else [], False

    def _header(self) -> tuple[list[Event], bool]:
        header = HEADER.match(self._text)
        if header and header[1] in self._names:
            self._text = self._text[header.end() :]
            self._begin()
            return [Called(self.calls - 1, header[1])], True
        if header or len(self._text) > LONGEST_HEADER:
            text, self._text, self._state = OPEN * self._marked + self._text, "", "text"
            return [Said(text)], False
        return [], False

    def _begin(self) -> None:
        self._state, self._end = "arguments", _ObjectEnd()
        self.calls += 1


class _ObjectEnd:
    """Finds where a JSON object that comes in pieces ends."""

    def __init__(self):
        self._depth, self._quoted, self._escaped = 0, False, False

    def find(self, text: str) -> int | None:
        """Where in this piece it ends (behind the last brace); None if it goes on."""
        for position, character in enumerate(text):
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return position + 1
        return None


def _overlap(text: str, mark: str) -> int:
    """How much of the end of `text` is a beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)


def with_tools(messages: Sequence[dict[str, Any]], tools: Tools | None, *, native: bool) -> list[dict[str, Any]]:
    """The conversation as a template reads it.

    Args:
        native: whether the template itself shows functions, calls and results.
    """
    if native:
        return [_with_parsed_arguments(message) for message in messages]
    shown = [_plain_message(message) for message in messages]
    if tools is not None and tools.choice != "none":
        system = shown.pop(0)["content"] + "\n\n" if shown[0]["role"] == "system" else ""
        shown.insert(0, {"role": "system", "content": system + tools.explained()})
    return shown


def _with_parsed_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's arguments are a text; templates want the object, to write it in their own way."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = _object(call["function"]["arguments"])
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    for call in message.get("tool_calls") or ():
        call_json = {"name": call["function"]["name"], "arguments": _object(call["function"]["arguments"])}
        content += ("\n" if content else "") + f"{OPEN}\n{json.dumps(call_json, ensure_ascii=False)}\n{CLOSE}"
    return {"role": role, "content": content}


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
