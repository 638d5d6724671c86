"""Mistakes and failures in the form that OpenAI's clients understand; never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from underhood.core.errors import UserError, nearest
from underhood.infer.request_handle import EngineStopped, QueueFull

log = logging.getLogger("underhood.web")

INVALID, FAILED, BUSY = "invalid_request_error", "server_error", "rate_limit_error"

OPERATIONS = ("/chat/completions", "/completions", "/embeddings", "/models")
"""OpenAI's paths behind ``/v1``."""


class ApiError(HTTPException):
    """What a client is told instead of an answer.

    Args:
        param: the field at fault, e.g. ``messages[0].role``.
        code: a word that programs can act on.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, dict(headers or {}))
        self.kind, self.param, self.code = kind, param, code

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.detail, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status_code, self.headers)


def invalid(message: str, param: str) -> ApiError:
    """A field that holds what can't be used."""
    return ApiError(400, message, param=param, code="invalid_value")


def unknown_model(name: str, known: Sequence[str]) -> ApiError:
    near = nearest(name, known)
    hint = f"Did you mean {near}?" if near else f"There are {', '.join(known)}."
    return ApiError(404, f"The model {name!r} does not exist. {hint}", param="model", code="model_not_found")


def nothing_at(path: str) -> str:
    """What a wrong path is told: a base URL without ``/v1``, or with it twice, is the frequent slip."""
    message = f"There is nothing at {path}."
    operation = next((operation for operation in OPERATIONS if path.rstrip("/").endswith(operation)), None)
    return message if operation is None else f"{message} Did you mean /v1{operation}? The base URL ends with /v1."


def engine_failed() -> ApiError:
    return ApiError(503, "The engine failed on this request.", kind=FAILED, code="engine_failed")


def translate(error: Exception, *, param: str | None = None, retry_after: int = 1) -> ApiError:
    """What an exception means to a client; one that means nothing to it is raised again."""
    wait = {"Retry-After": str(retry_after)}
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(
            429, "Too many requests are waiting; ask again later.", kind=BUSY, code="queue_full", headers=wait
        )
    if isinstance(error, EngineStopped):
        return ApiError(503, "The model takes no more requests.", kind=FAILED, code="engine_stopped", headers=wait)
    if isinstance(error, UserError):
        return ApiError(400, str(error), param=param)
    raise error


def install(app: FastAPI) -> None:
    """Has every error of the app answered in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def _(request: Request, error: ApiError) -> JSONResponse:
        return error.response

    @app.exception_handler(UserError)
    async def _(request: Request, error: UserError) -> JSONResponse:
        return translate(error).response

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error.errors(), error.body).response

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            allowed = headers.get("Allow", "").split(", ")
            methods = [*allowed, "HEAD"] if "GET" in allowed else allowed
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": ", ".join([*methods, "OPTIONS"])})
            headers["Allow"] = ", ".join(methods)
        messages = {404: nothing_at(request.url.path), 405: f"{request.method} does not work here."}
        message = messages.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=headers).response

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, and the server's log shows it; the client never sees it.
        return ApiError(500, "The server failed on this request; its log says how.", kind=FAILED).response


def of_validation(mistakes: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The first mistake that pydantic found, with the field as the client wrote it."""
    worst = max(mistakes, key=lambda mistake: _depth(mistake, body))  # of a union's branches, the one that came closest
    param = _field(worst, body) or None
    kind, message = str(worst["type"]), str(worst["msg"])
    if kind == "json_invalid":
        return ApiError(400, f"The body is not JSON: {worst.get('ctx', {}).get('error', message)}.")
    if param is None and (kind == "missing" or isinstance(body, bytes)):
        return ApiError(400, "The body is missing or not sent as application/json.")
    if kind == "missing":
        return ApiError(400, f"Missing field: {param}.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown field: {param}.", param=param, code="unknown_parameter")
    field = param or "the body"
    message = message.removeprefix("Value error, ")
    return ApiError(400, f"Invalid value for {field}: {message}.", param=param, code="invalid_value")


def _depth(error: Mapping[str, Any], body: Any) -> int:
    return len(_steps(error, body)) + (error["type"] != "missing")


def _steps(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """The error's place in the body; pydantic's names for a union's branches, which the client never wrote, go."""
    source, *path = error["loc"]
    if source != "body":
        return path
    steps: list[str | int] = []
    here = body
    for number, step in enumerate(path):
        if (isinstance(here, Mapping) and step in here) or (
            isinstance(here, list) and isinstance(step, int) and step < len(here)
        ):
            here = here[step]
        elif not (error["type"] == "missing" and number == len(path) - 1 and isinstance(here, Mapping)):
            continue
        steps.append(step)
    return steps


def _field(error: Mapping[str, Any], body: Any) -> str:
    words = ""
    steps = _steps(error, body)
    if str(error["type"]).startswith("union_tag"):  # role or type: the field that says which kind it is
        steps.append(error["ctx"]["discriminator"].strip("'"))
    for step in steps:
        words += f"[{step}]" if isinstance(step, int) else f".{step}" if words else str(step)
    return words
