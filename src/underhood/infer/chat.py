"""Talking with a model: a conversation that fits into its context, answered in a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.arguments import check_count, check_text
from underhood.infer.grammar import Grammar
from underhood.infer.request import OutputChunk, Request, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.session import Session
from underhood.text.chat import CHATML, Message, Template
from underhood.text.system_messages import render_conversation
from underhood.ui import notebook

ANSWER_SHARE = 4
"""At least a quarter of the context, or all the tokens asked for if they are fewer, is kept free for the answer."""


class PreparedPrompt(Protocol):
    """A conversation as the model is to read it, e.g. with retrieved passages; `retrieve.Retrieved` is one."""

    @property
    def messages(self) -> Sequence[Message]:
        """The messages, the last of them the user's."""
        ...

    @property
    def grammar(self) -> Grammar | None:
        """What the answer must match, or None."""
        ...

    @property
    def sampling(self) -> SamplingSpec | None:
        """How the answer is drawn; None leaves it to the caller."""
        ...


@dataclass(frozen=True)
class PlainPrompt:
    """A conversation that the model reads as it is."""

    messages: Sequence[Message]
    grammar: Grammar | None = None
    sampling: SamplingSpec | None = None


Prepare = Callable[[Sequence[Message]], PreparedPrompt]
"""Makes the prompt of a turn from the plain conversation, which ends with the user's message."""


class ChatSession:
    """The turns so far and the model that answers them.

    The whole conversation is handed to the model every turn, but only new tokens are prefilled (see `Session`). When it
    outgrows the context, the oldest turns are left out of what the model sees, the system message never; `messages`
    keeps them all.

    Attributes:
        messages: the conversation, ``{"role": …, "content": …}`` each, as the two wrote it.
        prepare: makes what the model reads of it, e.g. `retrieve.Retriever.prepare`.
        written: the tokens of the last answer, with their log-probabilities.
        forgotten: how many of the oldest messages (the system message aside) the model no longer sees.
        session: the reading behind it; ``session.finish`` says how the last answer ended.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        template: Template = CHATML,
        prepare: Prepare = PlainPrompt,
    ):
        self.tokenizer, self.template, self.prepare = tokenizer, template, prepare
        self.session = Session(model)
        self.messages: list[Message] = []
        self.forgotten = 0
        self.written: list[WrittenToken] = []
        self.reset(system)

    def __repr__(self) -> str:
        count = sum(message["role"] == "user" for message in self.messages)
        lines = [f"{message['role']}: {message.get('content') or ''}" for message in self.messages]
        return "\n".join([f"<conversation of {count} turns>", *lines])

    def _repr_html_(self) -> str:
        pieces = [notebook.turns([dict(message) for message in self.messages])]
        if self.written:
            pieces = [notebook.turns([dict(message) for message in self.messages[:-1]]), self._last_answer()]
            pieces.append(notebook.probability_key())
        return notebook.framed(*pieces)

    def _last_answer(self) -> Markup:
        tokens = ((t.id, self.tokenizer.decode_bytes([t.id]), math.exp(t.logprob)) for t in self.written)
        return notebook.token_strip(tokens)

    @property
    def system(self) -> str | None:
        """The system message, or None."""
        first = self.messages[0] if self.messages else None
        return first["content"] if first is not None and first["role"] == "system" else None

    def reset(self, system: str | None = None) -> None:
        """Begins anew, with a system message if one is given."""
        self.messages = [{"role": "system", "content": system}] if system else []
        self.forgotten = 0
        self.written = []

    def reply(
        self, text: str, *, max_new_tokens: int = 256, sampling: SamplingSpec = GREEDY, stop: Sequence[str] = ()
    ) -> Iterator[str]:
        """Says `text` and yields the answer in pieces.

        If the iterator is closed early, what has been yielded stays as the answer; if that is nothing, the turn is
        taken back.

        Args:
            stop: texts that end the answer and are left out of it.

        Raises:
            UserError: the message alone does not fit into the context (nothing is said then).
        """
        check_text(text, "the message")
        check_count(max_new_tokens, "max_new_tokens")
        conversation = [*self.messages, {"role": "user", "content": text}]
        request = self.request(text, max_new_tokens=max_new_tokens, sampling=sampling, stop=stop)
        turn = sum(message["role"] == "user" for message in self.messages)  # with a seed, every turn draws anew
        return self._reply(conversation, self.session.write(request, self.tokenizer, choice=turn))

    def request(
        self, text: str, *, max_new_tokens: int = 256, sampling: SamplingSpec = GREEDY, stop: Sequence[str] = ()
    ) -> Request:
        """The request of the turn that says `text`, prepared and fitted into the context; nothing is said yet.

        Raises:
            UserError: the message alone does not fit into the context.
        """
        prepared = self.prepare([*self.messages, {"role": "user", "content": text}])
        return Request(
            prompt=self._fit(prepared.messages, max_new_tokens),
            max_new_tokens=max_new_tokens,
            sampling=prepared.sampling or sampling,
            stop_ids=frozenset(self.template.stop_ids(self.tokenizer)),
            stop=tuple(stop),
            grammar=prepared.grammar,
        )

    def _reply(self, conversation: list[Message], chunks: Iterator[OutputChunk]) -> Iterator[str]:
        answer, complete = "", False
        written: list[WrittenToken] = []
        try:
            for chunk in chunks:
                written += chunk.tokens
                answer += chunk.text
                if chunk.text:
                    yield chunk.text
            complete = True
        finally:
            if answer or complete:
                self.messages = [*conversation, {"role": "assistant", "content": answer}]
                self.written = written

    def _fit(self, messages: Sequence[Message], max_new_tokens: int) -> list[int]:
        """The conversation's tokens, with as few of the oldest messages left out as make it fit."""
        ids = self._ids(messages)
        context = self.session.model.context_length
        self.forgotten = 0
        if context is None:
            return ids
        limit = context - min(max_new_tokens, context // ANSWER_SHARE)
        head, turns = (messages[:1], messages[1:]) if messages[0]["role"] == "system" else ([], messages)
        while len(ids) > limit:
            # A question and its answer go together, so that what stays begins with the user.
            self.forgotten += 1
            while self.forgotten < len(turns) and turns[self.forgotten]["role"] != "user":
                self.forgotten += 1
            if self.forgotten >= len(turns):
                self.forgotten = 0
                raise UserError(
                    "the message is too long for the model",
                    expected=f"at most {limit} tokens with the system message, to leave room for an answer",
                    got=str(len(ids)),
                )
            ids = self._ids([*head, *turns[self.forgotten :]])
        return ids

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return render_conversation(self.template, self.tokenizer, messages, add_generation_prompt=True).ids
