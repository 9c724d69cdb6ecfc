"""Who asks: the owner of a key, or everybody where there are no keys."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Problem, problem_response
from service.jobs import Job
from service.registry import EVERYBODY
from service.settings import Settings

# What needs no key: pages, their files, and what a load balancer asks. Everything else does, whether it exists or not.
_OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
_OPEN_FOLDER = "/static/"


class Callers:
    """The keys, of which only digests are kept."""

    def __init__(self, settings: Settings) -> None:
        self._digests = {name: _digest(key) for name, key in settings.keys.items()}

    def name(self, authorization: str | None) -> str:
        """The owner of the key in an Authorization header; a Problem if keys are needed and this is none."""
        if not self._digests:
            return EVERYBODY
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Problem(401, "send your key as Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})
        sent = _digest(key.strip())
        # every key is compared, each in constant time: neither tells which one, or how much of it, was right
        matching = [name for name, digest in self._digests.items() if hmac.compare_digest(sent, digest)]
        if not matching:
            raise Problem(401, "this key is not known", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return matching[0]


class Authenticated:
    """Judges the key before anything else of a request, its body above all, and says who is calling."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to a request that needs a key and has none that is known."""
        if scope["type"] == "http" and not (scope["path"] in _OPEN or scope["path"].startswith(_OPEN_FOLDER)):
            try:
                caller = self._callers.name(Headers(scope=scope).get("authorization"))
            except Problem as problem:
                headers = dict(problem.headers or {})
                await problem_response(problem.status_code, problem.detail, headers=headers)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def may_see(caller: str, job: Job) -> bool:
    """Whether a job is the caller's own or everybody's."""
    return job.owner in (EVERYBODY, caller)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _caller(request: Request) -> str:
    caller: str = request.state.caller
    return caller


CallerOf = Annotated[str, Depends(_caller)]
