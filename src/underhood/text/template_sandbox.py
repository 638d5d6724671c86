"""Sandboxed rendering of Jinja chat templates, in a subprocess with time and memory limits.

See `template_worker` for the sandbox. `hf_chat_template` makes tokens of the text.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError

WORKER = Path(__file__).with_name("template_worker.py")

STARTING = 300.0
"""Seconds that the rendering process may take to start: a cold disk takes tens of them to read Python and Jinja."""

KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "LANG", "LC_ALL", "TZ", "HOME")


@dataclass(frozen=True, kw_only=True)
class RenderLimits:
    """What a template may use.

    Attributes:
        seconds: for one rendering, by the clock; the process's start is not counted.
        characters: of output.
        memory: bytes of address space of the rendering process.
    """

    seconds: float = 20.0
    characters: int = 8_000_000
    memory: int = 1 << 30


@dataclass(frozen=True)
class RenderedText:
    """A conversation as text, and the spans [start, end) that the template itself marks as the assistant's."""

    text: str
    spans: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class RenderedConversation(RenderedText):
    """The same with the place where each answer begins.

    Attributes:
        starts: for each answer, where the conversation before it, rendered with the generation prompt, ends; None where
            that is not a beginning of the text. Empty if there are spans.
    """

    starts: list[int | None] = field(default_factory=list)


@dataclass(frozen=True)
class ConversationToRender:
    """A conversation for `render_conversations`.

    Attributes:
        answers: numbers of the messages whose beginnings are wanted.
        prompt: whether to open an assistant turn at the end.
        tools: descriptions of functions, or None.
    """

    messages: Sequence[Mapping[str, Any]]
    answers: Sequence[int] = ()
    prompt: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None


DEFAULT_LIMITS = RenderLimits()


def render_template(
    source: str,
    variables: Mapping[str, Any],
    limits: RenderLimits = DEFAULT_LIMITS,
    *,
    where: str = "the chat template",
) -> RenderedText:
    """Renders a chat template as transformers would.

    Args:
        source: the Jinja source.
        variables: what it may use: ``messages``, ``add_generation_prompt``, ``bos_token``, ``tools`` …; plain values
            (text, numbers, lists, tables) only.
        where: how errors call the template.

    Raises:
        UserError: the template is wrong, refuses the conversation, takes too long or writes too much.
    """
    request = {"template": source, "variables": _all_given(variables), "characters": limits.characters}
    answer = _ask(request, limits, where)
    _check(answer, limits, where)
    return RenderedText(answer["text"], [(start, end) for start, end in answer["spans"]])


def render_conversations(
    source: str,
    variables: Mapping[str, Any],
    conversations: Sequence[ConversationToRender],
    limits: RenderLimits = DEFAULT_LIMITS,
    *,
    where: str = "the chat template",
) -> list[RenderedConversation | UserError]:
    """Renders many conversations, and where their answers begin, in one request to the process.

    Args:
        variables: what all of them share; see `render_template`.

    Returns:
        For each conversation its text, or why it has none. Where the process had to be stopped, what comes after the
        conversation that was the reason is left out.
    """
    request = {"template": source, "variables": _all_given(variables), "characters": limits.characters}
    try:
        answer = _ask(request | {"conversations": [vars(each) for each in conversations]}, limits, where)
        _check(answer, limits, where)
    except UserError as error:
        if len(conversations) < 2:
            return [error]
        # One conversation that takes too long, or all the memory, must not be blamed on the others.
        singly: list[RenderedConversation | UserError] = []
        for each in conversations:
            singly += render_conversations(source, variables, [each], limits, where=where)
            if isinstance(singly[-1], UserError):
                break
        return singly
    rendered: list[RenderedConversation | UserError] = []
    for each in answer["conversations"]:
        try:
            _check(each, limits, where)
            spans = [(start, end) for start, end in each["spans"]]
            rendered.append(RenderedConversation(each["text"], spans, each["starts"]))
        except UserError as error:
            rendered.append(error)
    return rendered


def _ask(request: Mapping[str, Any], limits: RenderLimits, where: str) -> Any:
    """What the process answers to a request."""
    try:
        line = json.dumps(request).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"the conversation holds values that JSON cannot express: {error}") from error
    return json.loads(_process(limits).ask(line, limits.seconds, where))


def _check(answer: Mapping[str, Any], limits: RenderLimits, where: str) -> None:
    """Raises a `UserError` for an answer that is an error."""
    kind, message = answer.get("error"), answer.get("message", "")
    if kind is None:
        return
    if kind == "refused":
        raise UserError(f"{where} refuses the conversation: {message}")
    if kind == "syntax":
        raise UserError(f"{where} is not valid Jinja: {message}")
    if kind == "long":
        raise UserError(f"{where} writes too much and was stopped", expected=f"at most {limits.characters} characters")
    if kind == "memory":
        raise UserError(f"{where} needs too much memory and was stopped", expected=f"at most {limits.memory} bytes")
    raise UserError(f"{where} cannot render the conversation: {message}")


def _all_given(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Templates ask ``if tools`` and ``if documents``; both exist always."""
    return {"tools": None, "documents": None, "add_generation_prompt": False} | dict(variables)


class TemplateProcess:
    """The rendering process; it starts with the first request and again after it had to be stopped."""

    def __init__(self, memory: int):
        self._memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()

    def ask(self, line: bytes, seconds: float, where: str) -> bytes:
        """The answer to one request.

        Raises:
            UserError: there was none in time, or the process died of it.
        """
        with self._lock:
            try:
                process = self._started()
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
                answer = self._answers.get(timeout=seconds)
            except queue.Empty:
                self.stop()
                expected = f"an answer within {seconds:g} s"
                raise UserError(f"{where} does not come to an end and was stopped", expected=expected) from None
            except OSError:
                answer = b""
            except BaseException:
                self.stop()  # an interrupted request's answer must not be taken for the next one's
                raise
            if not answer:
                self.stop()
                raise UserError(f"{where} made the process that renders it fail", fix="Use another chat template")
            return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # -P: this folder's modules must not shadow the standard library's. And what the environment may
            # hold of secrets is none of a template's business.
            command = [sys.executable, "-P", str(WORKER), str(self._memory)]
            kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=kept)
            self._answers = queue.Queue()
            threading.Thread(target=_read, args=(self._process, self._answers), daemon=True).start()
            try:
                ready = self._answers.get(timeout=STARTING)
            except queue.Empty:
                ready = b""
            if not ready:
                raise UserError("the process that renders chat templates does not start", fix="Try again")
        return self._process

    def stop(self) -> None:
        """Ends the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):  # what could not be written any more
                    process.stdin.close()


def _read(process: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            answers.put(line)
    answers.put(b"")


_PROCESSES: dict[tuple[int, int], TemplateProcess] = {}
_PROCESSES_LOCK = threading.Lock()


def _process(limits: RenderLimits) -> TemplateProcess:
    # A forked child must not share its parent's pipe, so the process id is part of the key.
    key = os.getpid(), limits.memory
    with _PROCESSES_LOCK:
        if key not in _PROCESSES:
            _PROCESSES[key] = TemplateProcess(limits.memory)
            atexit.register(_PROCESSES[key].stop)
        return _PROCESSES[key]
