"""While the engine writes: pieces of several requests as one stream, and what happens when the client leaves."""

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
from underhood.infer.request import Piece, Request
from underhood.infer.ticket import Ticket
from underhood.web.answers import FinishReason, PromptDetails, UsageFacts
from underhood.web.errors import ApiError, engine_failed, log, translate
from underhood.web.hub import Served
from underhood.web.metrics import Stopwatch
from underhood.web.settings import ServeSettings

T = TypeVar("T")


def submit(served: Served, requests: Sequence[Request], settings: ServeSettings, param: str) -> list[Ticket]:
    """Asks the engine for all of them, or for none. A grammar takes time to work out: call it in a thread.

    Raises:
        ApiError: the queue is full, the engine has ended, or a request can't be met.
    """
    tickets: list[Ticket] = []
    try:
        for request in requests:
            tickets.append(served.engine.submit(request))
    except Exception as error:
        for ticket in tickets:
            ticket.cancel()
        raise translate(error, param=param, retry_after=settings.retry_after) from error
    return tickets


async def pieces_of(tickets: Sequence[Ticket], watch: Stopwatch) -> AsyncGenerator[tuple[int, Piece], None]:
    """Every ticket's pieces as they come, with the ticket's number, and timed. Leaving early cancels all.

    Raises:
        ApiError: the engine failed on one of them, or its time was up before it had begun.
    """
    arriving = _numbered(tickets[0]) if len(tickets) == 1 else _merged(tickets)
    async with aclosing(arriving):
        async for number, piece in arriving:
            watch.piece(number, piece)
            check(tickets[number], piece)
            yield number, piece


async def _numbered(ticket: Ticket) -> AsyncGenerator[tuple[int, Piece], None]:
    try:
        async for piece in ticket.apieces():
            yield 0, piece
    finally:
        ticket.cancel()


async def _merged(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, Piece], None]:
    arrived: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    async def follow(number: int, ticket: Ticket) -> None:
        try:
            async for piece in ticket.apieces():
                arrived.put_nowait((number, piece))
            arrived.put_nowait((number, None))
        except Exception as error:
            arrived.put_nowait((number, error))

    tasks = [asyncio.create_task(follow(number, ticket)) for number, ticket in enumerate(tickets)]
    left = len(tasks)
    try:
        while left:
            number, piece = await arrived.get()
            if piece is None:
                left -= 1
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield number, piece
    finally:
        for task, ticket in zip(tasks, tickets, strict=True):
            task.cancel()
            ticket.cancel()


def check(ticket: Ticket, piece: Piece) -> None:
    """Raises what a client must hear in place of an answer."""
    if piece.finish == "error":
        if isinstance(ticket.error, UserError):  # the request asked for what can't be had
            raise ApiError(400, str(ticket.error), code="invalid_value") from ticket.error
        if ticket.error is None and ticket.request.grammar is not None:
            raise ApiError(400, "The model's vocabulary can't spell what the format wants.", param="response_format")
        log.error("the engine failed on a request", exc_info=ticket.error)
        raise engine_failed() from ticket.error
    if piece.finish == "cancelled":
        raise ApiError(503, "The server is shutting down.", kind="server_error", code="engine_stopped")
    if piece.finish == "deadline" and not ticket.usage.completion_tokens:
        raise ApiError(
            503, "The request's time was up before it could begin.", kind="server_error", headers={"Retry-After": "10"}
        )


def finish_reason(piece: Piece) -> FinishReason | None:
    """OpenAI's word for an end: out of time counts as out of length."""
    if piece.finish is None:
        return None
    return "stop" if piece.finish == "stop" else "length"


def usage_of(tickets: Sequence[Ticket]) -> UsageFacts:
    """What requests have cost together."""
    prompt = sum(ticket.usage.prompt_tokens for ticket in tickets)
    completion = sum(ticket.usage.completion_tokens for ticket in tickets)
    return UsageFacts(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(ticket.usage.cached_tokens for ticket in tickets)),
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


async def collect(tickets: Sequence[Ticket], take: Callable[[int, Piece], object], watch: Stopwatch) -> None:
    """Hands all pieces of all tickets to `take` until every choice has ended."""
    async with aclosing(pieces_of(tickets, watch)) as pieces:
        async for number, piece in pieces:
            take(number, piece)
