"""Webhooks: a job's end told to an address that its caller named, signed as Standard Webhooks (standardwebhooks.com) says.

Only hosts on the operator's list are told, and only at public addresses unless the operator says otherwise: whoever may
submit jobs must not reach what the service can reach and they cannot.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from service.errors import Problem
from service.jobs import Job, now
from service.schemas import JobEnvelope
from service.settings import Settings

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0
# Seconds from one attempt to the next; after the last the caller is not told.
RETRIES_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0)
MAX_URL = 2000

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_log = logging.getLogger(__name__)


class NotSent(RuntimeError):
    """The receiver was not told this time; `final` says that it never will be."""

    final = False


class NoAnswer(NotSent):
    """Nobody answered: others who are to be told at the same host would wait as long."""


class NoSecret(NotSent):
    """There is nothing to sign with."""

    final = True


def check_url(url: str, caller: str, settings: Settings) -> None:
    """Raise a Problem if a webhook of this caller could never be sent to this address."""
    if not settings.webhook_hosts or not (settings.webhook_secret or settings.webhook_secrets):
        raise Problem(
            422, "webhooks are off here: the operator must set SDFSRN_WEBHOOK_SECRET and SDFSRN_WEBHOOK_HOSTS", field="webhook_url"
        )
    if settings.secret_of(caller) is None:
        raise Problem(
            422,
            f"webhooks are off for the key {caller!r}: the operator must give it a secret of its own in SDFSRN_WEBHOOK_SECRETS",
            field="webhook_url",
        )
    try:
        httpx.URL(url)  # stricter about control characters than urlsplit
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, httpx.InvalidURL):
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None or len(url) > MAX_URL:
        raise Problem(422, "expected an http or https URL without a user name", field="webhook_url")
    if not {host, f"{host}:{port}"} & {each.lower() for each in settings.webhook_hosts}:
        known = ", ".join(settings.webhook_hosts)
        raise Problem(422, f"webhooks may go to {known} only", field="webhook_url")


def warn_of(settings: Settings) -> None:
    """Log what in the settings would leave callers untold without anybody noticing."""
    if settings.keys and settings.webhook_secret and not settings.webhook_secrets:
        _log.warning("there are keys, so SDFSRN_WEBHOOK_SECRET signs nothing: give each key a secret in SDFSRN_WEBHOOK_SECRETS")
    if settings.keys and (strange := sorted(settings.webhook_secrets.keys() - settings.keys.keys())):
        _log.warning("SDFSRN_WEBHOOK_SECRETS has secrets for %s, and SDFSRN_KEYS has no such key", ", ".join(strange))


def public_addresses(host: str, port: int, *, private: bool) -> list[str]:
    """The addresses of a host, all of them fit to be told; raises NotSent if one is not public (unless `private` allows it)."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise NoAnswer(f"{host} has no address: {error}") from error
    if not private and any(not _is_public(address) for address in found):
        raise NotSent(f"{host} has an address that is not public")
    return found


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inner is not None:
            parsed = inner
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return parsed.is_global and not parsed.is_multicast


def seconds_since(time_rfc3339: str) -> float:
    """How long ago a time of a record was."""
    return time.time() - datetime.fromisoformat(time_rfc3339).timestamp()


def signature(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """Standard Webhooks' symmetric scheme: v1, and the base64 of HMAC-SHA256 over id, timestamp and body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{message_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


def send(job: Job, settings: Settings) -> None:
    """Tell the receiver once; raises NotSent unless it answered with 2xx. Of its answer the status alone is read."""
    secret = settings.secret_of(job.owner)
    if secret is None:
        raise NoSecret("there is no secret to sign it with (SDFSRN_WEBHOOK_SECRET, SDFSRN_WEBHOOK_SECRETS)")
    assert job.webhook is not None
    parts = urlsplit(job.webhook)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # The address that was looked at is the one that is used: a name may mean another one a moment later.
    address = public_addresses(str(parts.hostname), port, private=settings.webhook_private)[0]
    target = httpx.URL(job.webhook).copy_with(host=address)
    envelope = JobEnvelope.of(job).model_dump(mode="json")
    body = json.dumps({"type": f"job.{job.status}", "timestamp": now(), "data": envelope})
    at = int(time.time())
    headers = {
        "host": parts.netloc,
        "content-type": "application/json",
        "webhook-id": job.id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(secret, job.id, at, body),
    }
    try:
        status = asyncio.run(_post(target, body, headers, {"sni_hostname": parts.hostname}))
    except httpx.ConnectTimeout:
        raise NoAnswer(f"nobody took the connection within {CONNECT_TIMEOUT_S:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    except TimeoutError:
        raise NoAnswer(f"the receiver did not answer within {TIMEOUT_S:.0f} s") from None
    if not 200 <= status < 300:
        raise NotSent(f"the receiver answered {status}")


async def _post(target: httpx.URL, body: str, headers: dict[str, str], extensions: dict[str, Any]) -> int:
    """The status of the answer, in a time that holds for all of it: httpx's own starts again with every byte."""
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    async with (
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client,
        client.stream("POST", target, content=body, headers=headers, extensions=extensions) as answer,
    ):
        return answer.status_code
