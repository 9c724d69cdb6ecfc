"""What happens to every request before a route sees it: bodies that are too long, strange host names, HEAD, traces."""

import asyncio
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.artifacts import NEARLY_FULL
from service.errors import Problem, problem_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# A form has room for an image and a mask of 20 MB each.
MAX_FORM = 42_000_000
MAX_BODY = 1_000_000
MAX_ARCHIVE = 2_000_000_000
_VERSIONS = re.compile(r"/v1/models/[^/]+/versions")


class BodyLimit:
    """Counts the bytes of a body as they arrive; `Content-Length` may be missing, or lie.

    An upload also ends where there is no room for another copy of it, which is what the store will take.
    """

    def __init__(self, app: ASGIApp, has_room: Callable[[int], bool]) -> None:
        self._app = app
        self._has_room = has_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that stops at the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _limit(scope["path"], headers.get("content-type", ""))
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > limit:
            await problem_response(
                413, _too_long(limit), [{"field": "body", "message": _too_long(limit)}]
            )(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise Problem(413, _too_long(limit), field="body")
            if limit > MAX_BODY and not self._has_room(received):
                raise Problem(503, NEARLY_FULL, headers={"Retry-After": "60"})
            return message

        await self._app(scope, counted, send)


class SameSite:
    """Without keys, only pages and programs of this machine may ask: else any web page could post to it."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to a Host or an Origin that is not known."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if _hostname(f"//{headers.get('host', '')}") not in self._hosts:
                await problem_response(403, "this Host is not served; name it in SDFSRN_HOSTS")(scope, receive, send)
                return
            if "origin" in headers and _hostname(headers["origin"]) not in self._hosts:
                await problem_response(403, "requests from pages of other sites are refused")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Heads:
    """Answers HEAD wherever there is a GET, with the same status and headers and without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for a GET, send on the start of its answer, and tell whoever would send more that nobody listens."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # a Range is for GET alone (RFC 9110, 14.2)
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = {**scope, "method": "GET", "headers": headers}
        answered = asyncio.Event()
        messages: list[Message] = [{"type": "http.request", "body": b""}]

        async def until_answered() -> Message:
            if messages:
                return messages.pop()
            await answered.wait()
            return {"type": "http.disconnect"}

        async def start_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                if "route" in asked:
                    scope["route"] = asked["route"]  # for the metrics
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answered.set()

        await self._app(asked, until_answered, start_only)


class Traced:
    """Every request belongs to a trace: the caller's (W3C `traceparent`) or a new one, which the answer names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its trace."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = logs.trace_id(Headers(scope=scope).get("traceparent"))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-trace-id", trace.encode())]
            await send(message)

        with logs.about(trace=trace):
            await self._app(scope, receive, named)


def _limit(path: str, kind: str) -> int:
    if path == "/v1/datasets":
        return MAX_ARCHIVE
    # as long as a checkpoint of networks of the default size with a training's state; larger ones are published from their job
    checkpoint = _VERSIONS.fullmatch(path) and not kind.strip().lower().startswith("application/json")
    return MAX_FORM if checkpoint or path == "/v1/reconstructions" else MAX_BODY


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _too_long(limit: int) -> str:
    return f"the body is longer than {limit} bytes"
