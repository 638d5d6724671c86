"""Worker process of the template sandbox: one JSON request per line in, one JSON answer per line out.

A chat template is a program from the internet. Jinja's sandbox keeps it from files and from Python's insides, but not
from looping for ever or from building a string that fills the memory, and a thread cannot be stopped. A process can:
`template_sandbox.TemplateProcess` starts this module, limits its memory and ends it when an answer is overdue. Starting
takes a fifth of a second, once; a request takes a fraction of a millisecond.

The environment is the one that published templates are written for, that of transformers' ``apply_chat_template``:
blocks trimmed, ``break`` and ``continue``, ``raise_exception``, ``strftime_now``, ``tojson`` without HTML escaping,
and ``{% generation %}`` around what the assistant says.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

KEPT = 64  # compiled templates; a process rarely sees more than one or two


class Refusal(Exception):
    """What a template says with ``raise_exception``."""


class OutputTooLong(Exception):
    pass


class Generation(Extension):
    """``{% generation %} … {% endgeneration %}``: records the spans of the assistant's words in the output.

    A block's text is only known to be at a place of the output once everything in front of it is written, so the
    block's edges are written as marks, which `render` takes out again.
    """

    tags = {"generation"}  # noqa: RUF012 (Jinja asks for a set)
    OPEN, CLOSE = "\ufdee", "\ufdef"  # noncharacters: Unicode keeps them free for uses like this

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return self.OPEN + caller() + self.CLOSE


class GuardedNamespace(Namespace):
    """Jinja's ``namespace()`` without names that begin with an underscore, which are Python's own."""

    def __init__(*args: Any, **named: Any) -> None:
        self, *pairs = args
        values = dict(*pairs, **named)
        for name in values:
            _check_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox with what chat templates expect to find in it."""
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: object) -> None:
        raise Refusal(str(message))

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def table(*pairs: Any, **named: Any) -> dict[Any, Any]:
        return dict(*pairs, **named)  # instead of the type itself, whose attributes lead further

    sandbox.filters["tojson"] = to_json
    sandbox.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    sandbox.globals.update(dict=table, namespace=GuardedNamespace)
    return sandbox


def render(template: jinja2.Template, variables: dict[str, Any], characters: int) -> tuple[str, list[list[int]]]:
    """The text, and the spans [start, end) of its ``generation`` blocks.

    Raises:
        OutputTooLong: the text has more than so many characters.
    """
    pieces: list[str] = []
    length = 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > characters:
            raise OutputTooLong
        pieces.append(piece)
    marked = "".join(pieces)
    if Generation.OPEN not in marked:
        return marked, []
    text, spans, start = "", [], 0
    for piece in marked.replace(Generation.CLOSE, Generation.OPEN + Generation.CLOSE).split(Generation.OPEN):
        if piece.startswith(Generation.CLOSE):
            spans.append([start, len(text)])
        else:
            start = len(text)
        text += piece.removeprefix(Generation.CLOSE)
    return text, spans


def answer(sandbox: ImmutableSandboxedEnvironment, known: dict[str, jinja2.Template], request: Any) -> dict[str, Any]:
    """The answer to one request: a text, or what kind of error happened and its message."""
    try:
        source = request["template"]
        if source not in known:
            if len(known) >= KEPT:
                known.clear()
            known[source] = sandbox.from_string(source)
        if "conversations" in request:
            return {"conversations": [conversation(known[source], request, each) for each in request["conversations"]]}
        text, spans = render(known[source], request["variables"], request["characters"])
        return {"text": text, "spans": spans}
    except Exception as error:
        return explained(error)


def conversation(template: jinja2.Template, request: Any, wanted: Any) -> dict[str, Any]:
    """The answer for one of many conversations: its text, spans, and where each answer begins.

    An answer begins where the conversation before it, rendered with the generation prompt, ends. Only that length
    goes back to the program, and only where the rendered beginning is one; null says that it is not.
    """
    messages, characters = wanted["messages"], request["characters"]

    def rendered(count: int, prompt: bool) -> tuple[str, list[list[int]]]:
        given = {"messages": messages[:count], "add_generation_prompt": prompt, "tools": wanted["tools"]}
        return render(template, request["variables"] | given, characters)

    try:
        text, spans = rendered(len(messages), wanted["prompt"])
    except Exception as error:
        return explained(error)
    starts: list[int | None] = []
    for number in [] if spans else wanted["answers"]:
        try:
            beginning = rendered(number, True)[0] if number else None
        except Exception:  # templates may refuse what is only a part of a conversation
            beginning = None
        starts.append(None if beginning is None or not text.startswith(beginning) else len(beginning))
    return {"text": text, "spans": spans, "starts": starts}


def explained(failure: Exception) -> dict[str, Any]:
    """What kind of error happened, and its message."""
    try:
        raise failure
    except Refusal as error:
        return {"error": "refused", "message": str(error)}
    except OutputTooLong:
        return {"error": "long", "message": ""}
    except (MemoryError, OverflowError):
        return {"error": "memory", "message": ""}
    except jinja2.TemplateSyntaxError as error:
        return {"error": "syntax", "message": f"line {error.lineno}: {error.message}"}
    except Exception as error:  # whatever the template did wrong: jinja2's own errors, TypeErrors, recursion
        return {"error": "failed", "message": f"{type(error).__name__}: {error}"}


def main(memory: int) -> None:
    """Says that it has started (an empty answer), then answers requests until the input ends.

    Args:
        memory: bytes of address space that the process may use, where the system can limit it.
    """
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # Windows, and systems that know no such limit: the time limit remains
    sandbox, known = environment(), {}
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    out.write("{}\n")
    out.flush()
    for line in sys.stdin.buffer:
        out.write(json.dumps(answer(sandbox, known, json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
