"""While the engine writes: chunks of several requests as one stream, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, ClassVar, TypeVar

from fastapi import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from underhood.core.errors import UserError
from underhood.infer.request import OutputChunk, Request
from underhood.infer.request_handle import RequestHandle
from underhood.web.errors import ApiError, engine_failed, log, translate
from underhood.web.metrics import Stopwatch
from underhood.web.registry import Served
from underhood.web.responses import FinishReason, PromptDetails, UsageFacts
from underhood.web.settings import ServeSettings

T = TypeVar("T")


def submit(served: Served, requests: Sequence[Request], settings: ServeSettings, param: str) -> list[RequestHandle]:
    """Asks the engine for all of them, or for none. A grammar takes time to work out: call it in a thread.

    Raises:
        ApiError: the queue is full, the engine has ended, or a request can't be met.
    """
    handles: list[RequestHandle] = []
    try:
        for request in requests:
            handles.append(served.engine.submit(request))
    except Exception as error:
        for handle in handles:
            handle.cancel()
        raise translate(error, param=param, retry_after=settings.retry_after) from error
    return handles


async def chunks_of(
    handles: Sequence[RequestHandle], watch: Stopwatch
) -> AsyncGenerator[tuple[int, OutputChunk], None]:
    """Every handle's chunks as they come, with the handle's number, and timed. Leaving early cancels all.

    Raises:
        ApiError: the engine failed on one of them, or its time was up before it had begun.
    """
    arriving = _numbered(handles[0]) if len(handles) == 1 else _merged(handles)
    async with aclosing(arriving):
        async for number, chunk in arriving:
            watch.chunk(number, chunk)
            check(handles[number], chunk)
            yield number, chunk


async def _numbered(handle: RequestHandle) -> AsyncGenerator[tuple[int, OutputChunk], None]:
    try:
        async for chunk in handle.achunks():
            yield 0, chunk
    finally:
        handle.cancel()


async def _merged(handles: Sequence[RequestHandle]) -> AsyncGenerator[tuple[int, OutputChunk], None]:
    arrived: asyncio.Queue[tuple[int, OutputChunk | Exception | None]] = asyncio.Queue()

    async def follow(number: int, handle: RequestHandle) -> None:
        try:
            async for chunk in handle.achunks():
                arrived.put_nowait((number, chunk))
            arrived.put_nowait((number, None))
        except Exception as error:
            arrived.put_nowait((number, error))

    tasks = [asyncio.create_task(follow(number, handle)) for number, handle in enumerate(handles)]
    left = len(tasks)
    try:
        while left:
            number, chunk = await arrived.get()
            if chunk is None:
                left -= 1
            elif isinstance(chunk, Exception):
                raise chunk
            else:
                yield number, chunk
    finally:
        for task, handle in zip(tasks, handles, strict=True):
            task.cancel()
            handle.cancel()


def check(handle: RequestHandle, chunk: OutputChunk) -> None:
    """Raises what a client must hear in place of an answer."""
    if chunk.finish == "error":
        if isinstance(handle.error, UserError):  # the request asked for what can't be had
            raise ApiError(400, str(handle.error), code="invalid_value") from handle.error
        if handle.error is None and handle.request.grammar is not None:
            raise ApiError(400, "The model's vocabulary can't spell what the format wants.", param="response_format")
        log.error("the engine failed on a request", exc_info=handle.error)
        raise engine_failed() from handle.error
    if chunk.finish == "cancelled":
        raise ApiError(503, "The server is shutting down.", kind="server_error", code="engine_stopped")
    if chunk.finish == "deadline" and not handle.usage.completion_tokens:
        raise ApiError(
            503, "The request's time was up before it could begin.", kind="server_error", headers={"Retry-After": "10"}
        )


def finish_reason(chunk: OutputChunk) -> FinishReason | None:
    """OpenAI's word for an end: out of time counts as out of length."""
    if chunk.finish is None:
        return None
    return "stop" if chunk.finish == "stop" else "length"


def usage_of(handles: Sequence[RequestHandle]) -> UsageFacts:
    """What requests have cost together."""
    prompt = sum(handle.usage.prompt_tokens for handle in handles)
    completion = sum(handle.usage.completion_tokens for handle in handles)
    return UsageFacts(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(handle.usage.cached_tokens for handle in handles)),
    )


async def unless_gone(request: HttpRequest, work: Awaitable[T]) -> T:
    """The work's result; if the client leaves first, the work is cancelled.

    Raises:
        ClientGone: nobody is there to hear an answer.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await task


class ClientGone(Exception):
    """The client has left; what would be answered goes nowhere."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "A part of the answer as JSON; the last one is [DONE]."}},
    "required": ["data"],
}
"""How OpenAPI describes each event of a stream."""


class EventStream(Response):
    """Server-sent events: one ``data:`` line per object, ``[DONE]`` at the end.

    Status and headers go out with the first event, so that a failure before it is still a plain error. The stream is
    closed in the moment the client leaves, also while there is nothing to send.
    """

    media_type = "text/event-stream"
    description: ClassVar[dict[int | str, dict[str, Any]]] = {
        200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}
    }
    """What a route that may answer so adds to its description."""

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], first: dict[str, Any] | None):
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._first = events, first

    @classmethod
    async def begin(cls, request: HttpRequest, events: AsyncGenerator[dict[str, Any], None]) -> "EventStream":
        """A stream whose first event is there.

        Raises:
            ApiError: there is none, for what was asked has failed.
        """
        return cls(events, await unless_gone(request, anext(events, None)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            if not sending.done():
                sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            if self._first is not None:
                await send(_event(self._first))
            async for event in self._events:
                await send(_event(event))
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        except OSError:
            return  # the client has left
        except Exception as error:
            if not isinstance(error, ApiError):
                log.error("a stream failed", exc_info=error)
            told = error if isinstance(error, ApiError) else engine_failed()
            await send(_event(told.body, last=True))


def _event(data: dict[str, Any], *, last: bool = False) -> dict[str, Any]:
    line = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return {"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": not last}


async def collect(
    handles: Sequence[RequestHandle], take: Callable[[int, OutputChunk], object], watch: Stopwatch
) -> None:
    """Hands all chunks of all handles to `take` until every choice has ended."""
    async with aclosing(chunks_of(handles, watch)) as chunks:
        async for number, chunk in chunks:
            take(number, chunk)
