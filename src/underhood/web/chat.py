"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from underhood.core.protocols import Tokenizer
from underhood.infer.request import OutputChunk, WrittenToken
from underhood.infer.request_handle import RequestHandle
from underhood.web.body import StrictRoute
from underhood.web.engine_requests import ChatAsked, ask_chat
from underhood.web.metrics import Metrics, Stopwatch
from underhood.web.recent_completions import RecentCompletion, RecentCompletions
from underhood.web.registry import ModelRegistry, Served
from underhood.web.requests import ChatRequest
from underhood.web.responses import (
    ERRORS,
    Alternative,
    ChatAnswer,
    ChatChoice,
    ChatLogprobs,
    FinishReason,
    SaidCall,
    SaidFunction,
    SaidMessage,
    TokenLogprob,
)
from underhood.web.retrieval import annotations_of, passages_of
from underhood.web.settings import ServeSettings
from underhood.web.streaming import EventStream, chunks_of, collect, finish_reason, submit, unless_gone, usage_of
from underhood.web.tools import Argued, Called, CallReader, Event, Said

LOWEST_LOGPROB = -9999.0
"""Replaces minus infinity, which JSON doesn't know; OpenAI uses the same number."""


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def chat_router(
    registry: ModelRegistry, settings: ServeSettings, recent: RecentCompletions, metrics: Metrics
) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/chat/completions", response_model=ChatAnswer, responses=ERRORS | EventStream.description)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """The answer to a conversation, at once or as a stream."""
        served = registry.find(body.model)
        # Templates run in a process of their own, and long texts take time: others' streams go on meanwhile.
        chat_request = await asyncio.to_thread(ask_chat, body, served, settings)
        if chat_request.retrieved is not None:
            metrics.retrievals.labels(served.id, "yes" if chat_request.retrieved.hits else "no").inc()
        (handle,) = await asyncio.to_thread(submit, served, [chat_request.request], settings, "messages")
        choices = [_ChatChoice(CallReader(chat_request.tools)) for _ in range(chat_request.request.n)]
        talk = _Talk(served, chat_request, handle, choices, metrics.stopwatch(served))
        if body.stream:
            wants_usage = body.stream_options is not None and body.stream_options.include_usage is True
            return await EventStream.begin(request, talk.stream(recent, with_usage=wants_usage))
        await unless_gone(request, collect([handle], lambda _, chunk: talk.take(chunk), talk.watch))
        talk.remember(recent)
        return Response(talk.answer().model_dump_json(), media_type="application/json")

    return router


@dataclass
class _ChatChoice:
    """One answer as far as it has come."""

    reader: CallReader
    raw: str = ""
    content: str = ""
    calls: list[SaidCall] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None

    def take(self, chunk: OutputChunk) -> list[Event]:
        """Takes a chunk in; what it has made certain."""
        self.raw += chunk.text
        events = [*self.reader.push(chunk.text)]
        if chunk.finish is not None:
            events += self.reader.finish()
        for event in events:
            if isinstance(event, Said):
                self.content += event.text
            elif isinstance(event, Called):
                self.calls.append(SaidCall(id=new_id("call"), function=SaidFunction(name=event.name, arguments="")))
            else:
                self.calls[event.index].function.arguments += event.text
        self.finish = finish_reason(chunk)
        if self.finish == "stop" and self.calls:
            self.finish = "tool_calls"
        return events


@dataclass
class _Talk:
    """One request while it is answered."""

    served: Served
    chat_request: ChatAsked
    handle: RequestHandle
    choices: list[_ChatChoice]
    watch: Stopwatch
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def logprobs(self) -> bool:
        return self.chat_request.request.logprobs is not None

    def take(self, chunk: OutputChunk) -> list[Event]:
        choice = self.choices[chunk.choice]
        if self.logprobs:
            choice.tokens += token_logprobs(self.served.loaded.tokenizer, chunk.tokens)
        return choice.take(chunk)

    def answer(self) -> ChatAnswer:
        choices, retrieved = [], self.chat_request.retrieved
        for number, choice in enumerate(self.choices):
            message = SaidMessage(
                content=choice.content or (None if choice.calls else ""),
                tool_calls=choice.calls or None,
                annotations=None if retrieved is None else annotations_of(retrieved, choice.content),
            )
            logprobs = ChatLogprobs(content=choice.tokens) if self.logprobs else None
            choices.append(
                ChatChoice(index=number, message=message, logprobs=logprobs, finish_reason=choice.finish or "length")
            )
        return ChatAnswer(
            id=self.id,
            created=self.created,
            model=self.served.id,
            choices=choices,
            usage=usage_of([self.handle]),
            system_fingerprint=self.served.fingerprint,
            retrieved=None if retrieved is None else passages_of(retrieved),
        )

    async def stream(self, recent: RecentCompletions, *, with_usage: bool) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as chunks; the last one holds the usage, if wanted.

        The first one holds the passages of retrieval; the citations of a choice come with its finish reason.
        """
        extra: dict[str, Any] = {"usage": None} if with_usage else {}
        retrieved = self.chat_request.retrieved
        passages: dict[str, Any] = {}
        if retrieved is not None:
            passages = {"retrieved": [passage.model_dump() for passage in passages_of(retrieved)]}
        begun: set[int] = set()
        async with aclosing(chunks_of([self.handle], self.watch)) as chunks:
            async for _, chunk in chunks:
                number = chunk.choice
                if number not in begun:
                    begun.add(number)
                    yield self._chunk(number, {"role": "assistant", "content": ""}) | extra | passages
                    passages = {}
                choice = self.choices[number]
                before = len(choice.tokens)
                events = self.take(chunk)
                logprobs = choice.tokens[before:]
                for position, event in enumerate(events):
                    first = logprobs if position == 0 else []
                    yield self._chunk(number, _delta(event, choice.calls), logprobs=first) | extra
                if logprobs and not events:  # its text is still held back
                    yield self._chunk(number, {"content": ""}, logprobs=logprobs) | extra
                if choice.finish is not None:
                    delta: dict[str, Any] = {}
                    if retrieved is not None:
                        cited = annotations_of(retrieved, choice.content)
                        delta = {"annotations": [citation.model_dump() for citation in cited]}
                    yield self._chunk(number, delta, finish=choice.finish) | extra
        self.remember(recent)
        if with_usage:
            usage = usage_of([self.handle]).model_dump()
            yield self._frame() | {"choices": [], "usage": usage}

    def remember(self, recent: RecentCompletions) -> None:
        """Keeps the exchange for a while, so that feedback can name it by its id."""
        recent.add(
            self.id,
            RecentCompletion(self.served.id, self.chat_request.messages, [choice.raw for choice in self.choices]),
        )

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.served.id,
            "system_fingerprint": self.served.fingerprint,
        }

    def _chunk(
        self,
        number: int,
        delta: dict[str, Any],
        *,
        finish: FinishReason | None = None,
        logprobs: Sequence[TokenLogprob] = (),
    ) -> dict[str, Any]:
        told = {"content": [logprob.model_dump() for logprob in logprobs], "refusal": None} if logprobs else None
        choice = {"index": number, "delta": delta, "logprobs": told, "finish_reason": finish}
        return self._frame() | {"choices": [choice]}


def _delta(event: Event, calls: Sequence[SaidCall]) -> dict[str, Any]:
    if isinstance(event, Said):
        return {"content": event.text}
    if isinstance(event, Called):
        call = {"id": calls[event.index].id, "type": "function", "function": {"name": event.name, "arguments": ""}}
        return {"tool_calls": [{"index": event.index} | call]}
    assert isinstance(event, Argued)
    return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}


def token_logprobs(tokenizer: Tokenizer, tokens: Sequence[WrittenToken]) -> list[TokenLogprob]:
    """Written tokens with their log-probabilities and alternatives, as chat answers tell them."""
    return [
        TokenLogprob(
            **_token(tokenizer, token.id, token.logprob),
            top_logprobs=[Alternative(**_token(tokenizer, id, logprob)) for id, logprob in token.top],
        )
        for token in tokens
    ]


def _token(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    raw = token_bytes(tokenizer, id)
    return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, LOWEST_LOGPROB), "bytes": list(raw)}


def token_bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """A token's bytes; none for an id that only the model's matrix has room for."""
    return tokenizer.decode_bytes([id]) if id < tokenizer.vocab_size else b""
