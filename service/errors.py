"""Every error is one RFC 9457 problem: `type, title, status, detail`, and `errors` with the place of each bad field."""

import asyncio
import errno
import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import redis
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdfsrn.images import ImageError
from service.artifacts import StorageError

_MAX_ERRORS = 20
CLIENT_CLOSED_REQUEST = 499
_log = logging.getLogger(__name__)

# What a file that is taken in can meet: no room on the disk, no handle left, a disk that fails.
_SHORTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO}

# Parts of a location that name a place in our types, not a field of the request.
_WITHIN_TYPES = ("(", "tuple[", "function-", "list[")

# What pydantic says in terms of Python.
_WORDS = dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a JSON object; /docs tells its fields")
_WORDS |= dict.fromkeys(("tuple_type", "list_type"), "must be a JSON list")
_WORDS["extra_forbidden"] = "there is no such field; /docs tells which there are"


class Problem(HTTPException):
    """An answer other than success; `field` names the part of the request that is to blame."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = errors or ([{"field": field, "message": detail}] if field else [])


def problem_response(
    status: int, detail: str, errors: Sequence[dict[str, str]] = (), headers: dict[str, str] | None = None
) -> Response:
    """The one envelope of all errors."""
    title = HTTPStatus(status).phrase
    content: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        content["errors"] = list(errors)
    # ASCII, because what a client sent may come back in it and need not be valid Unicode.
    return Response(json.dumps(content), status, headers, media_type="application/problem+json")


def problem_of_image(error: ImageError) -> Problem:
    """A picture that cannot be used: 413 if it has too many bytes, else 422."""
    return Problem(413 if error.too_large else 422, str(error), field=error.field)


def problem_of_validation(error: ValidationError) -> Problem:
    """What pydantic found in a form."""
    errors = field_errors(error.errors())
    return Problem(422, _summary(errors), errors=errors)


def field_errors(errors: Sequence[Any], skip: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """pydantic's findings as fields and messages; what was sent is not sent back."""
    return [
        {
            "field": "body" if error["type"] == "json_invalid" else _place(error["loc"], skip),
            "message": _WORDS.get(error["type"]) or str(error["msg"]).removeprefix("Value error, "),
        }
        for error in errors[:_MAX_ERRORS]
    ]


def install(app: FastAPI) -> None:
    """Let every error of the application answer with a problem; to be called before other middleware is added."""
    app.add_middleware(UnhandledErrors)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(redis.RedisError, _on_broker)
    app.add_exception_handler(StorageError, _on_storage)
    app.add_exception_handler(OSError, _on_shortage)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def _place(location: Sequence[Any], skip: tuple[str, ...]) -> str:
    parts = list(location[1:] if location and location[0] in skip else location)
    named = [str(part) for part in parts if not str(part).startswith(_WITHIN_TYPES)]
    return ".".join(named) or "body"


def _summary(errors: list[dict[str, str]]) -> str:
    told = [f"{error['field']}: {error['message']}" for error in errors[:3]]
    return "; ".join(told + ([f"and {len(errors) - 3} more, in `errors`"] if len(errors) > 3 else []))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if isinstance(error, Problem):
        return problem_response(error.status_code, str(error.detail), error.errors, headers)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"this address does not take {request.method}, but {headers['Allow']}"
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = "there is nothing at this address; /docs lists those that there are"
    return problem_response(error.status_code, detail, (), headers)


def _methods(request: Request) -> list[str]:
    """All that the path has; a router names those of its first route only."""
    scope = {**request.scope, "root_path": ""}  # a mounted folder changes it
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.matches(scope)[0] != Match.NONE:
            found |= route.methods or {"GET"}  # a mounted folder of files names no methods
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error.errors(), skip=("body", "query", "path", "header"))
    return problem_response(422, _summary(errors), errors)


async def _on_broker(_: Request, error: Exception) -> Response:
    _log.warning("the broker does not answer: %s", error)
    return problem_response(503, "the broker cannot be reached", headers={"Retry-After": "5"})


async def _on_storage(_: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError)
    _log.warning("%s", error)
    if error.full:
        detail = "the artifact store has no room left: its operator must make some"
        return problem_response(503, detail, headers={"Retry-After": "60"})
    return problem_response(503, "the artifact store cannot be reached", headers={"Retry-After": "5"})


async def _on_shortage(_: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno not in _SHORTAGES:
        raise error
    _log.warning("cannot take in a file: %s", error)
    return problem_response(503, "the service has no room for files at present", headers={"Retry-After": "5"})


async def _on_disconnect(_: Request, __: Exception) -> Response:
    """Nobody reads this answer; the metrics count it by this status, which others use for the same."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


class UnhandledErrors:
    """Answers 500 to whatever no handler knew, inside of all that counts and traces requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except asyncio.CancelledError:
            if scope["type"] != "http" or started:
                raise
            detail = "the service is being restarted; send the request again"
            await problem_response(503, detail, headers={"Retry-After": "1"})(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            _log.exception("%s %s", scope["method"], scope["path"])
            detail = f"an error of the service ({type(error).__name__}); its log has the details"
            await problem_response(500, detail)(scope, receive, send)
