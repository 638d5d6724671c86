"""``POST /v1/completions``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from underhood.infer.request import OutputChunk, WrittenToken
from underhood.infer.request_handle import RequestHandle
from underhood.web.body import StrictRoute
from underhood.web.chat import LOWEST_LOGPROB, new_id, token_bytes
from underhood.web.engine_requests import ask_completions
from underhood.web.metrics import Metrics, Stopwatch
from underhood.web.recent_completions import RecentCompletion, RecentCompletions
from underhood.web.registry import ModelRegistry, Served
from underhood.web.requests import CompletionRequest
from underhood.web.responses import (
    ERRORS,
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    FinishReason,
    UsageFacts,
)
from underhood.web.settings import ServeSettings
from underhood.web.streaming import EventStream, chunks_of, collect, finish_reason, submit, unless_gone, usage_of
from underhood.web.token_view import score


def completions_router(
    registry: ModelRegistry, settings: ServeSettings, recent: RecentCompletions, metrics: Metrics
) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/completions", response_model=CompletionAnswer, responses=ERRORS | EventStream.description)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """What follows a text, or several, at once or as a stream."""
        served = registry.find(body.model)
        requests = await asyncio.to_thread(ask_completions, body, served, settings)
        prompts: list[_Prompt] = []
        for each in requests:
            prompt = _Prompt(list(each.prompt))
            if body.echo:
                prompt.text = await asyncio.to_thread(_text_of, served, prompt.ids)
                if each.logprobs is not None:
                    prompt.tokens = await asyncio.to_thread(_prompt_logprobs, served, prompt.ids, each.logprobs)
            prompts.append(prompt)
        writing = [each for each in requests if each.max_new_tokens > 0]
        handles = await asyncio.to_thread(submit, served, writing, settings, "prompt")
        n = requests[0].n
        wants_logprobs = body.logprobs is not None
        choices = [
            _CompletionChoice(served, prompt, wants_logprobs, bool(body.echo)) for prompt in prompts for _ in range(n)
        ]
        text = _CompletionText(served, prompts, handles, choices, n, metrics.stopwatch(served))
        if body.stream:
            wants_usage = body.stream_options is not None and body.stream_options.include_usage is True
            return await EventStream.begin(request, text.stream(recent, with_usage=wants_usage))
        await unless_gone(request, collect(handles, text.take, text.watch))
        text.remember(recent)
        return Response(text.answer().model_dump_json(), media_type="application/json")

    return router


@dataclass
class _Prompt:
    """A prompt, and for `echo` its text and how probable each of its tokens was."""

    ids: list[int]
    text: str = ""
    tokens: list[tuple[int, WrittenToken | None]] = field(default_factory=list)


@dataclass
class _CompletionChoice:
    """One continuation as far as it has come."""

    served: Served
    prompt: _Prompt
    wants_logprobs: bool
    echo: bool
    text: str = ""
    tokens: list[WrittenToken] = field(default_factory=list)
    finish: FinishReason | None = None
    offset: int = 0
    """Characters of the tokens whose logprobs have been told."""

    def take(self, chunk: OutputChunk) -> None:
        self.text += chunk.text
        self.tokens += chunk.tokens
        self.finish = finish_reason(chunk)

    def logprobs(self, tokens: Sequence[WrittenToken], *, opening: bool = False) -> CompletionLogprobs | None:
        """The log-probabilities of these tokens, after those of the prompt if they open an echo."""
        if not self.wants_logprobs:
            return None
        logprobs = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        if opening and self.echo:
            for id, told in self.prompt.tokens:
                self._tell(logprobs, id, told)
        for token in tokens:
            self._tell(logprobs, token.id, token)
        return logprobs

    def _tell(self, logprobs: CompletionLogprobs, id: int, told: WrittenToken | None) -> None:
        name = self._name(id)
        logprobs.tokens.append(name)
        logprobs.text_offset.append(self.offset)
        logprobs.token_logprobs.append(None if told is None else max(told.logprob, LOWEST_LOGPROB))
        tops = None if told is None else {self._name(other): max(lp, LOWEST_LOGPROB) for other, lp in told.top}
        logprobs.top_logprobs.append(tops)
        self.offset += len(name)

    def _name(self, id: int) -> str:
        return token_bytes(self.served.loaded.tokenizer, id).decode("utf-8", "replace")


@dataclass
class _CompletionText:
    """One request while it is answered."""

    served: Served
    prompts: list[_Prompt]
    handles: list[RequestHandle]
    choices: list[_CompletionChoice]
    n: int
    watch: Stopwatch
    id: str = field(default_factory=lambda: new_id("cmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def take(self, number: int, chunk: OutputChunk) -> None:
        self.choices[number * self.n + chunk.choice].take(chunk)

    def answer(self) -> CompletionAnswer:
        choices = []
        for index, choice in enumerate(self.choices):
            logprobs = choice.logprobs(choice.tokens, opening=True)
            text, finish = choice.prompt.text + choice.text, choice.finish or "length"
            choices.append(CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=finish))
        return CompletionAnswer(**self._frame(), choices=choices, usage=self.usage())

    def usage(self) -> UsageFacts:
        usage = usage_of(self.handles)
        prompt = sum(len(given.ids) for given in self.prompts)  # those for which nothing was written cost something too
        return usage.model_copy(update={"prompt_tokens": prompt, "total_tokens": prompt + usage.completion_tokens})

    async def stream(self, recent: RecentCompletions, *, with_usage: bool) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as chunks; the last one holds the usage, if wanted."""
        extra: dict[str, Any] = {"usage": None} if with_usage else {}
        opened: set[int] = set()
        if not self.handles:
            for index in range(len(self.choices)):
                yield self._chunk(index, OutputChunk(finish="length"), opening=True) | extra
        async with aclosing(chunks_of(self.handles, self.watch)) as chunks:
            async for number, chunk in chunks:
                index = number * self.n + chunk.choice
                self.take(number, chunk)
                if chunk.text or chunk.tokens or chunk.finish is not None:
                    yield self._chunk(index, chunk, opening=index not in opened) | extra
                    opened.add(index)
        self.remember(recent)
        if with_usage:
            yield self._frame() | {"choices": [], "usage": self.usage().model_dump()}

    def remember(self, recent: RecentCompletions) -> None:
        """Keeps the first prompt's exchange for a while, so that feedback can name it by its id."""
        messages = [{"role": "user", "content": _text_of(self.served, self.prompts[0].ids)}]
        texts = [choice.text for choice in self.choices[: self.n]]
        recent.add(self.id, RecentCompletion(self.served.id, messages, texts))

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.served.id,
            "system_fingerprint": self.served.fingerprint,
        }

    def _chunk(self, index: int, chunk: OutputChunk, *, opening: bool) -> dict[str, Any]:
        choice = self.choices[index]
        told = choice.logprobs(chunk.tokens, opening=opening)
        text = (choice.prompt.text if opening else "") + chunk.text
        facts = {
            "index": index,
            "text": text,
            "logprobs": told.model_dump() if told is not None else None,
            "finish_reason": finish_reason(chunk),
        }
        return self._frame() | {"choices": [facts]}


def _text_of(served: Served, ids: Sequence[int]) -> str:
    """A prompt's text, without what opens every text."""
    tokenizer = served.loaded.tokenizer
    return tokenizer.decode([id for id in ids[_opening(served, ids) :] if id < tokenizer.vocab_size])


def _opening(served: Served, ids: Sequence[int]) -> int:
    """How many of a prompt's tokens only open it and have no text."""
    opening = served.loaded.prompt_ids("")
    return len(opening) if list(ids[: len(opening)]) == opening else 0


def _prompt_logprobs(served: Served, ids: Sequence[int], top: int) -> list[tuple[int, WrittenToken | None]]:
    """How probable each token of a prompt's text was; None for one that follows nothing."""
    with served.scoring:
        rows = score(served.loaded, ids[:1], ids[1:], max(top, 1))
    told: list[WrittenToken | None] = [None]
    for row in rows:
        best = tuple((candidate["id"], candidate["logprob"]) for candidate in row["top"][:top])
        told.append(WrittenToken(id=row["id"], logprob=row["logprob"], top=best))
    return [*zip(ids, told, strict=True)][_opening(served, ids) :]
