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
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.core.protocols import Tokenizer
from underhood.text.chat import Rendered
from underhood.text.template_sandbox import RenderedText, RenderLimits, render_template

FOREIGN_ROLES = ("system", "user", "assistant", "tool", "developer", "ipython", "function")

Parts = list[str | int]


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
        mark = _unused_character([self.source, json.dumps([messages, tools], ensure_ascii=False, default=str)])
        hide = _hider(tuple(tokenizer.special), mark)
        hidden = [_hide_message(message, hide) for message in messages]
        shown_tools = None if tools is None else _map_strings(list(tools), hide)
        cache: dict[str, RenderedText] = {}

        def text_of(some: Sequence[Mapping[str, Any]], prompt: bool) -> RenderedText:
            key = json.dumps([some, prompt])
            if key not in cache:
                cache[key] = self._text(some, prompt, shown_tools, variables)
            return cache[key]

        rendered = text_of(hidden, add_generation_prompt)

        def ids_of(text: str) -> list[int]:
            return encode_parts(tokenizer, split_special(text, tokenizer.special, mark))

        ids = ids_of(rendered.text)
        spans = rendered.spans or self._spans(tokenizer, hidden, rendered.text, text_of, mark, add_generation_prompt)
        mask = [False] * len(ids)
        for start, end in spans:
            first = _common(ids_of(rendered.text[:start]), ids)
            upto = ids_of(rendered.text[:end])
            last = _common(upto, ids)
            last += last < len(upto)  # a token that reaches beyond the answer's end is said with it
            mask[first:last] = [True] * (last - first)
        return Rendered(ids, mask)

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
        text: str,
        text_of: Callable[[Sequence[Mapping[str, Any]], bool], RenderedText],
        mark: str,
        prompted: bool,
    ) -> list[tuple[int, int]]:
        """Character spans of the answers in the rendered text."""
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        starts = [self._start(number, messages, text, text_of, mark, prompted) for number in answers]
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
            end = min(_common(so_far, text), limit)
            spans.append((start, max(start, len(text[:end].rstrip()))))
        return spans

    def _start(
        self,
        number: int,
        messages: Sequence[Mapping[str, Any]],
        text: str,
        text_of: Callable[[Sequence[Mapping[str, Any]], bool], RenderedText],
        mark: str,
        prompted: bool,
    ) -> int:
        """Where the answer that is message `number` begins in the rendered text."""
        try:
            prompt = text_of(messages[:number], True).text if number else None
        except UserError:  # templates may refuse what is only a part of a conversation
            prompt = None
        if prompt is not None and text.startswith(prompt):
            return len(prompt)
        content = messages[number].get("content")
        other = [*messages]
        other[number] = {**messages[number], "content": mark + (content if isinstance(content, str) else "")}
        marked = text_of(other, prompted).text
        at = _common(marked, text)
        if marked[at : at + 1] != mark:
            raise UserError(
                f"{self.where} does not show where message {number}, an answer, begins",
                fix="Use a template with {% generation %} blocks around the assistant's turns",
            )
        return at


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


def split_special(text: str, special: Mapping[str, int], mark: str = "") -> Parts:
    """The text with each special spelling as its id; `mark`, which keeps spellings from being found, is taken out."""
    parts: Parts = []
    at = 0
    for match in _special_pattern(tuple(special)).finditer(text):
        parts += [text[at : match.start()], special[match[0]]]
        at = match.end()
    parts.append(text[at:])
    if mark:
        parts = [piece.replace(mark, "") if isinstance(piece, str) else piece for piece in parts]
    return [piece for piece in parts if piece != ""]


def encode_parts(tokenizer: Tokenizer, parts: Sequence[str | int]) -> list[int]:
    """The ids of texts and special ids in a row, the tokenizer's own rules at the seams where it has such rules."""
    own = getattr(tokenizer, "encode_parts", None)
    if own is not None:
        return own(parts)
    return [id for piece in parts for id in ([piece] if isinstance(piece, int) else tokenizer.encode(piece))]


@functools.lru_cache(maxsize=64)
def _special_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    # A name of one character could not be broken; no vocabulary has one.
    names = tuple(name for name in names if len(name) > 1)
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")


@functools.lru_cache(maxsize=64)
def _hider(names: tuple[str, ...], mark: str) -> Callable[[str], str]:
    """A function that breaks special spellings with the mark, and those that a text's neighbours could complete."""
    heads = {name[:end] for name in names for end in range(1, len(name))}
    tails = {name[start:] for name in names for start in range(1, len(name))}
    longest = max(map(len, names), default=0)
    # Looking ahead finds spellings that overlap, too.
    first_character = re.compile(f"(?=(?:{_special_pattern(names).pattern})).", re.DOTALL)

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


def _unused_character(texts: Sequence[str]) -> str:
    """A character that none of the texts holds; a noncharacter as long as one is free."""
    used = set().union(*texts)
    choices = [*range(0xFDD0, 0xFDEE), *range(0xF0000, 0x10FFFE)]
    return next(chr(code) for code in choices if chr(code) not in used)


def _common(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many elements two sequences share at the beginning."""
    shortest = min(len(left), len(right))
    if left[:shortest] == right[:shortest]:
        return shortest
    return next(index for index in range(shortest) if left[index] != right[index])


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
        if match := _special_pattern(tuple(dict(special))).search(behind):
            return dict(special)[match[0]]
    return None
