"""Ids and times."""

import secrets
import time
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26


def new_id(at: float | None = None) -> str:
    """An opaque id that sorts by time: 48 bits of milliseconds, 80 random bits, in base 32 (a ULID in lower case)."""
    return _base32((int((time.time() if at is None else at) * 1000) << 80) | secrets.randbits(80))


def first_id_at(at: float) -> str:
    """No id made at or after this time sorts before this one."""
    return _base32(max(0, int(at * 1000)) << 80)


def is_id(text: str) -> bool:
    """Whether a text has the form of a job id."""
    return len(text) == _ID_LENGTH and set(text) <= set(_ALPHABET)


def rfc3339(at: float) -> str:
    """A time in seconds since 1970 as RFC 3339, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """The present as RFC 3339, UTC."""
    return rfc3339(time.time())


def _base32(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_ID_LENGTH - 1), -1, -5))
