"""Reads a request's JSON with the care that strangers' bytes need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from underhood.web.errors import ApiError

DEEPEST = 64
"""Levels of lists and objects: more would only serve to exhaust somebody's stack."""


class StrictRequest(Request):
    """Its JSON holds no NaN, no half of a surrogate pair, no endless nesting and no key twice."""

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            encoding = self.headers.get("content-encoding", "identity")
            if encoding.lower() not in ("identity", ""):
                message = f"The body is encoded as {encoding}; send it as it is, without Content-Encoding."
                raise ApiError(415, message, headers={"Accept-Encoding": "identity"})
            raw = await self.body()
            # A long body would hold up everybody else's stream.
            self._parsed = await asyncio.to_thread(parse, raw) if len(raw) > 1 << 16 else parse(raw)
        return self._parsed


class StrictRoute(APIRoute):
    """A route whose body is read by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def parse(raw: bytes) -> Any:
    """The value that a body spells.

    Raises:
        ApiError: it is not UTF-8, not JSON as RFC 8259 has it, too deep, or not text all through. A byte order mark in
            front is passed over.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_no_twice)
        _check(value)
    except UnicodeError as error:
        raise ApiError(400, "The body is not UTF-8, or holds half of a surrogate pair.") from error
    except json.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error.msg} at character {error.pos}.") from error
    except RecursionError as error:
        raise ApiError(400, f"The body is nested deeper than {DEEPEST} levels.") from error
    except ValueError as error:  # a number of thousands of digits
        raise ApiError(400, "The body holds a number that is too long.") from error
    return value


def _no_constant(name: str) -> Any:
    raise ApiError(400, f"The body is not JSON: {name} is not a JSON number.")


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(400, f"The body has the field {twice!r} twice.".encode("utf-8", "replace").decode())
    return members


def _check(value: Any) -> None:
    todo = [(value, 1)]
    while todo:
        here, depth = todo.pop()
        if isinstance(here, str):
            here.encode("utf-8")
        elif isinstance(here, (dict, list)):
            if depth > DEEPEST:
                raise RecursionError
            parts = [*here.keys(), *here.values()] if isinstance(here, dict) else here
            todo += [(child, depth + 1) for child in parts]
