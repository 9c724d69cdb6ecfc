"""Who asks: the owner of a key, or everybody where there are no keys."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request

from service.errors import Problem
from service.jobs import Job
from service.registry import EVERYBODY
from service.settings import Settings


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


def may_see(caller: str, job: Job) -> bool:
    """Whether a job is the caller's own or everybody's."""
    return job.owner in (EVERYBODY, caller)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _caller(request: Request) -> str:
    callers: Callers = request.app.state.callers
    return callers.name(request.headers.get("authorization"))


CallerOf = Annotated[str, Depends(_caller)]
# For routes that need a key and do not care whose.
KEYED = [Depends(_caller)]
