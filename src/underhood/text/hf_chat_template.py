"""Chat template of a Hugging Face model: Jinja renders text, this module makes ids and a loss mask of it.

Rendered text leaves two questions open.

*Which special tokens are real.* A template writes ``<|im_end|>`` around what users write, and users can write
``<|im_end|>`` too. Before rendering, every special spelling inside a message gets a mark behind its first character
(a noncharacter that nothing else holds), so that afterwards only the template's own spellings are whole. The marks go,
the ids of the real ones are put in, and the rest is encoded as text in one piece: a conversation without forgeries has
the very ids that transformers gives. What this cannot see is a template that itself takes messages apart and puts a
special token together from what is left. None of the published ones does.

*Which tokens the assistant says.* Where the template has ``{% generation %}`` blocks, it says so itself. Elsewhere an
answer begins where the conversation before it, rendered with the generation prompt, ends; that is exactly what the
model will have read when it has to answer. It ends behind the template's end-of-turn token. A template for which the
first rule fails (its prompt is not a prefix of the whole) gets the answer's content alone.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.core.protocols import Tokenizer
from underhood.text.answer_spans import EncodedText, common_prefix, special_pattern
from underhood.text.chat import Rendered
from underhood.text.template_sandbox import (
    ConversationToRender,
    RenderedConversation,
    RenderedText,
    RenderLimits,
    render_conversations,
    render_template,
)

FOREIGN_ROLES = ("system", "user", "assistant", "tool", "developer", "ipython", "function")

Tools = Sequence[Mapping[str, Any]]

CONVERSATIONS_AT_ONCE = 64
"""Conversations in one request to the rendering process."""


@dataclass(frozen=True, kw_only=True)
class ForeignTemplate:
    """A published chat template. Has the interface of `chat.ChatTemplate`.

    Attributes:
        source: the Jinja source.
        variables: what the template may use beside the conversation: ``bos_token``, ``eos_token`` …, and switches such
            as ``enable_thinking``.
        end_ids: ids that end an answer, whatever the template says: the tokenizer's and the generation settings'.
        where: how errors call the template.
        limits: what it may use of time and memory.
    """

    source: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    end_ids: tuple[int, ...] = ()
    where: str = "the chat template"
    limits: RenderLimits = RenderLimits()

    @property
    def jinja(self) -> str:
        """The template for other libraries: the value of ``chat_template`` in a ``tokenizer_config.json``."""
        return self.source

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as text: what transformers' ``apply_chat_template(…, tokenize=False)`` gives.

        Text in which user-written special tokens look like real ones: never encode it, use `render`.
        """
        check_foreign_messages(messages)
        return self._text(messages, add_generation_prompt, tools, variables).text

    def render(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> Rendered:
        """The conversation as tokens and loss mask.

        Args:
            messages: ``{"role": …, "content": …}`` each, with whatever else the template reads (``tool_calls`` …).
            add_generation_prompt: open an assistant turn at the end, for the model to fill.
            tools: descriptions of functions, where the template can present them.
            variables: further values for the template.

        Raises:
            UserError: no message, an unknown role, or the template refuses or fails.
        """
        check_foreign_messages(messages)
        [rendered] = self._render(tokenizer, [messages], [tools], variables, prompt=add_generation_prompt)
        return rendered

    def render_all(
        self,
        tokenizer: Tokenizer,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        tools: Sequence[Tools | None] | None = None,
    ) -> Iterator[Rendered]:
        """Many conversations as tokens and loss mask, in order; the process that renders is asked once for many.

        Args:
            tools: of each conversation, or None.

        Raises:
            UserError: as for `render`, when the conversation's turn has come.
        """
        all_tools = tools or [None] * len(conversations)
        for first in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
            some = conversations[first : first + CONVERSATIONS_AT_ONCE]
            good = []
            for messages in some:
                try:
                    check_foreign_messages(messages)
                except UserError:
                    break
                good.append(messages)
            yield from self._render(tokenizer, good, all_tools[first : first + len(good)], {})
            if len(good) < len(some):
                check_foreign_messages(some[len(good)])

    def _render(
        self,
        tokenizer: Tokenizer,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        tools: Sequence[Tools | None],
        variables: Mapping[str, Any],
        *,
        prompt: bool = False,
    ) -> Iterator[Rendered]:
        shown = json.dumps([conversations, tools], ensure_ascii=False, default=str)
        mark = _unused_character(self.source + shown)
        hide = _hider(tuple(tokenizer.special), mark)
        hidden = [[_hide_message(message, hide) for message in messages] for messages in conversations]
        shown_tools = [None if each is None else _map_strings(list(each), hide) for each in tools]
        to_render = [
            ConversationToRender(messages, _answers(messages), prompt, each)
            for messages, each in zip(hidden, shown_tools, strict=True)
        ]
        given = {**self.variables, **variables}
        texts = render_conversations(self.source, given, to_render, self.limits, where=self.where)
        for each, text in zip(to_render, texts, strict=False):  # there may be fewer, the last of them an error
            if isinstance(text, UserError):
                raise text
            text_of = functools.partial(self._text, tools=each.tools, variables=variables)
            encoded = EncodedText(tokenizer, text.text, mark)
            spans = text.spans or self._spans(tokenizer, each.messages, text, text_of, mark, prompt)
            yield Rendered(encoded.ids, encoded.mask(spans))

    def writes(self, name: str) -> bool:
        """Whether the template's source names this field of a message or of a conversation."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens at which an answer is over: the template's end of turn first, then all other ends."""
        end = self._end_of_turn(tokenizer)
        return list(dict.fromkeys([*([] if end is None else [end]), *self.end_ids]))

    def _text(
        self, messages: Sequence[Mapping[str, Any]], prompt: bool, tools: Any, variables: Mapping[str, Any]
    ) -> RenderedText:
        given = {"messages": list(messages), "tools": tools, "add_generation_prompt": prompt}
        return render_template(self.source, {**self.variables, **variables, **given}, self.limits, where=self.where)

    def _end_of_turn(self, tokenizer: Tokenizer) -> int | None:
        """The first special token behind an answer that another question follows; None if there is none."""
        return _end_of_turn(self, tuple(tokenizer.special.items()))

    def __hash__(self) -> int:
        return hash((self.source, json.dumps(dict(self.variables), sort_keys=True, default=str)))

    def _spans(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        rendered: RenderedConversation,
        text_of: Callable[[Sequence[Mapping[str, Any]], bool], RenderedText],
        mark: str,
        prompted: bool,
    ) -> list[tuple[int, int]]:
        """Character spans of the answers in the rendered text."""
        text, answers = rendered.text, _answers(messages)
        starts = [
            self._marked_start(number, messages, text_of, text, mark, prompted) if start is None else start
            for number, start in zip(answers, rendered.starts, strict=True)
        ]
        stops = set(self.stop_ids(tokenizer))
        names = [name for name, id in tokenizer.special.items() if id in stops]
        end_token = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
        spans: list[tuple[int, int]] = []
        for index, (number, start) in enumerate(zip(answers, starts, strict=True)):
            limit = starts[index + 1] if index + 1 < len(answers) else len(text)
            if match := end_token.search(text, start, limit):
                spans.append((start, match.end()))
                continue
            # No end of turn: up to where the conversation so far ends, without the white space that follows it.
            so_far = text_of(messages[: number + 1], False).text
            end = min(common_prefix(so_far, text), limit)
            spans.append((start, max(start, len(text[:end].rstrip()))))
        return spans

    def _marked_start(
        self,
        number: int,
        messages: Sequence[Mapping[str, Any]],
        text_of: Callable[[Sequence[Mapping[str, Any]], bool], RenderedText],
        text: str,
        mark: str,
        prompted: bool,
    ) -> int:
        """Where the content of the answer that is message `number` begins in the rendered text."""
        content = messages[number].get("content")
        other = [*messages]
        other[number] = {**messages[number], "content": mark + (content if isinstance(content, str) else "")}
        marked = text_of(other, prompted).text
        at = common_prefix(marked, text)
        if marked[at : at + 1] != mark:
            raise UserError(
                f"{self.where} does not show where message {number}, an answer, begins",
                fix="Use a template with {% generation %} blocks around the assistant's turns",
            )
        return at


def _answers(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def check_foreign_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises a `UserError` unless `messages` is a conversation; what goes beyond its form the template judges."""
    if isinstance(messages, (str, Mapping)) or not messages:
        got = "none" if not messages else type(messages).__name__
        raise UserError("a conversation needs at least one message", expected="a list of messages", got=got)
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            expected = '{"role": …, "content": …}'
            raise UserError(f"message {number} is not a chat message", expected=expected, got=repr(message))
        role = message["role"]
        if role not in FOREIGN_ROLES:
            near = nearest(str(role), FOREIGN_ROLES)
            fix = f"did you mean {near!r}?" if near else None
            raise UserError(
                f"message {number} has an unknown role", expected=" | ".join(FOREIGN_ROLES), got=repr(role), fix=fix
            )
        if message.get("content") is None and not message.get("tool_calls"):
            raise UserError(f"message {number} has no text", expected="content", got=repr(message.get("content")))


@functools.lru_cache(maxsize=64)
def _hider(names: tuple[str, ...], mark: str) -> Callable[[str], str]:
    """A function that breaks special spellings with the mark, and those that a text's neighbours could complete."""
    heads = {name[:end] for name in names for end in range(1, len(name))}
    tails = {name[start:] for name in names for start in range(1, len(name))}
    longest = max(map(len, names), default=0)
    # Looking ahead finds spellings that overlap, too.
    first_character = re.compile(f"(?=(?:{special_pattern(names).pattern})).", re.DOTALL)

    def hide(text: str) -> str:
        core = text.strip()  # templates strip
        if not core:
            return text
        ends = range(1, min(longest, len(core)) + 1)
        before = mark if any(core[:end] in tails for end in ends) else ""
        after = mark if any(core[-end:] in heads for end in ends) else ""
        start = text.index(core)
        broken = before + first_character.sub(rf"\g<0>{mark}", core) + after
        return text[:start] + broken + text[start + len(core) :]

    return hide


def _hide_message(message: Mapping[str, Any], hide: Callable[[str], str]) -> dict[str, Any]:
    return {key: value if key == "role" else _map_strings(value, hide) for key, value in message.items()}


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        # Keys that templates read are plain names, which no special token's parts are.
        return {
            key if str(key).isidentifier() else change(str(key)): _map_strings(v, change) for key, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value


def _unused_character(text: str) -> str:
    """A character that the text does not hold; a noncharacter as long as one is free."""
    codes = itertools.chain(range(0xFDD0, 0xFDEE), range(0xF0000, 0x10FFFE))
    return next(chr(code) for code in codes if chr(code) not in text)


@functools.lru_cache(maxsize=64)
def _end_of_turn(template: ForeignTemplate, special: tuple[tuple[str, int], ...]) -> int | None:
    word = "ANSWERANSWER"
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": word}]
    for after in ([{"role": "user", "content": "R"}], []):
        try:
            text = template.text([*messages, *after])
        except UserError:
            continue
        if word not in text:
            continue
        behind = text[text.index(word) + len(word) :]
        if match := special_pattern(tuple(dict(special))).search(behind):
            return dict(special)[match[0]]
    return None
