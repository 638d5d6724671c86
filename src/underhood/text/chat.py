"""ChatML chat template: a conversation as tokens with a loss mask.

The form is ChatML as Qwen writes it::

    <|im_start|>user
    What is a list?<|im_end|>
    <|im_start|>assistant
    A mutable sequence.<|im_end|>

The two markers are special tokens that code puts in. Contents are encoded as plain text, so a user who types
``<|im_end|><|im_start|>system`` has typed some odd punctuation and nothing else. (Rendering to a string first and
tokenizing that, as the Jinja template in a `tokenizer_config.json` makes other libraries do, cannot promise this.)

One rule makes training and talking agree: white space in front of an assistant's answer is dropped. ``assistant`` and
its line feed are then always the same tokens, whether the answer is there already (training) or still to come
(generation), and a conversation's tokens are a prefix of those of the same conversation continued.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from underhood.core.errors import UserError, nearest
from underhood.core.protocols import Tokenizer

Message = Mapping[str, str]
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens.

    Attributes:
        ids: the tokens.
        mask: True where the token is the assistant's own: its words and the marker that ends its turn. Only these
            carry loss; everything else is given to the model, not said by it.
        targets: what to predict where the mask is true, if not the ids themselves (see `align.rehearsal`).
    """

    ids: list[int]
    mask: list[bool]
    targets: list[int] | None = None


class Template(Protocol):
    """Chat template: our `ChatTemplate`, or a published model's (`hf_chat_template.ForeignTemplate`)."""

    def render(
        self, tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> Rendered: ...

    def render_all(self, tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> Iterator[Rendered]: ...

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]: ...

    def writes(self, name: str) -> bool:
        """Whether it can write this field of a message (``tool_calls``, …) or of a conversation (``tools``)."""
        ...

    @property
    def jinja(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """ChatML with the two markers as parameters.

    Attributes:
        start: special token in front of each turn's role.
        end: special token behind each turn's content.
        end_of_text: special token that also stops an answer, where the tokenizer has it.
    """

    start: str = "<|im_start|>"
    end: str = "<|im_end|>"
    end_of_text: str = "<|endoftext|>"

    def render(
        self, tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> Rendered:
        """The conversation as tokens and loss mask.

        Args:
            messages: each ``{"role": "system" | "user" | "assistant", "content": str}``; a system message comes first.
            add_generation_prompt: open an assistant turn at the end, for the model to fill.

        Raises:
            UserError: there is no message, a role or content is wrong, or the tokenizer lacks the markers.
        """
        check_messages(messages)
        start, end = self._marker(tokenizer, self.start), self._marker(tokenizer, self.end)
        line_feed = tokenizer.encode("\n")
        ids: list[int] = []
        mask: list[bool] = []

        def add(new: list[int], learnt: bool = False) -> None:
            ids.extend(new)
            mask.extend([learnt] * len(new))

        for message in messages:
            role, content = message["role"], message["content"]
            add([start])
            if role == "assistant":
                add(tokenizer.encode("assistant\n"))
                add([*tokenizer.encode(content.lstrip()), end], learnt=True)
            else:
                add([*tokenizer.encode(f"{role}\n{content}"), end])
            add(line_feed)
        if add_generation_prompt:
            add([start, *tokenizer.encode("assistant\n")])
        return Rendered(ids, mask)

    def render_all(self, tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> Iterator[Rendered]:
        """Many conversations, in order; see `render`."""
        return (self.render(tokenizer, messages) for messages in conversations)

    def writes(self, name: str) -> bool:
        """Whether it writes a message's field of this name: roles and contents are all there is."""
        return name in ("role", "content")

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens at which an answer is over: the end of the turn first, then the end of the text."""
        others = [tokenizer.special[self.end_of_text]] if self.end_of_text in tokenizer.special else []
        return [self._marker(tokenizer, self.end), *others]

    @property
    def jinja(self) -> str:
        """The same template for other libraries: the value of ``chat_template`` in a ``tokenizer_config.json``."""
        start, end = _jinja_string(self.start), _jinja_string(self.end)
        newline = _jinja_string("\n")
        return (
            "{%- for message in messages -%}"
            "{%- if message['role'] == 'assistant' -%}{%- set content = message['content'].lstrip() -%}"
            "{%- else -%}{%- set content = message['content'] -%}{%- endif -%}"
            f"{{{{- {start} + message['role'] + {newline} + content + {end} + {newline} -}}}}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{- {start} + 'assistant' + {newline} -}}}}{{%- endif -%}}"
        )

    def _marker(self, tokenizer: Tokenizer, name: str) -> int:
        if name not in tokenizer.special:
            raise UserError(
                f"the tokenizer cannot mark chat turns: it has no special token {name}",
                got=", ".join(tokenizer.special) or "no special tokens",
                fix="Train it with this special token, or use a tokenizer of a chat model",
            )
        return tokenizer.special[name]


CHATML = ChatTemplate()


def without_loss(rendered: Rendered, skipped: Collection[int], answers: int) -> Rendered:
    """The same tokens with no loss on some of the answers.

    Args:
        skipped: numbers of those answers, counted from 0.
        answers: how many there are.

    Raises:
        UserError: the mask does not have one stretch per answer, so it does not tell them apart.
    """
    stretches = [
        list(group) for learnt, group in groupby(range(len(rendered.ids)), rendered.mask.__getitem__) if learnt
    ]
    if len(stretches) != answers:
        raise UserError(
            "the chat template does not show which tokens belong to which answer",
            expected=f"{answers} stretches with loss",
            got=str(len(stretches)),
            fix="Leave out conversations with answers of weight 0",
        )
    mask = [*rendered.mask]
    for number in skipped:
        for at in stretches[number]:
            mask[at] = False
    return Rendered(rendered.ids, mask)


def check_messages(messages: Sequence[Message]) -> None:
    """Raises a `UserError` unless `messages` is a conversation: see `ChatTemplate.render`."""
    if isinstance(messages, (str, Mapping)) or not messages:
        got = "none" if not messages else type(messages).__name__
        raise UserError("a conversation needs at least one message", expected="a list of messages", got=got)
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            expected = '{"role": …, "content": …}'
            raise UserError(f"message {number} is not a chat message", expected=expected, got=repr(message))
        role, content = message["role"], message["content"]
        if role not in ROLES:
            near = nearest(str(role), ROLES)
            raise UserError(
                f"message {number} has an unknown role",
                expected=" | ".join(ROLES),
                got=repr(role),
                fix=f"did you mean {near!r}?" if near else None,
            )
        if role == "system" and number > 0:
            raise UserError(f"message {number} is a system message", expected="a system message only at the start")
        if not isinstance(content, str):
            raise UserError(f"message {number} has no text", expected="content as a string", got=repr(content))


def _jinja_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
