"""Everything that can be set from outside, as environment variables with the prefix SDFSRN_."""

import base64
import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import fsspec
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

from sdfsrn.config import WEIGHTS

PREFIX = "SDFSRN_"
_EXIT_USAGE = 2
# The kernel's limit for the path of a Unix socket is 108 bytes on Linux and 104 on macOS.
_MAX_SOCKET_PATH = 100


def _is_secret(value: str) -> bool:
    """Whether a text is whsec_ and the base64 of 16 bytes or more."""
    try:
        return value.startswith("whsec_") and len(base64.b64decode(value[6:], validate=True)) >= 16
    except ValueError:
        return False


def _is_broker(url: str) -> bool:
    """Whether redis-py reads all of an address; a / in its password would end the host's name."""
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        return False
    parts = urlsplit(url)
    return parts.scheme == "unix" or "@" not in parts.path + parts.query + parts.fragment


def default_data_folder() -> Path:
    """Where this user's applications keep their data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sdfsrn"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sdfsrn"


class Settings(BaseSettings):
    """Read from the environment; every process of one service must be given the same values."""

    # a value may be a secret: no error repeats it
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, hide_input_in_errors=True)

    data: Path = Field(default_factory=default_data_folder, description="folder of all state")
    redis_url: str | None = Field(default=None, description="Valkey or Redis; default: the embedded broker's socket")
    artifacts_url: str | None = Field(default=None, description="fsspec URL of the store; default: a folder in `data`")
    weights: Path = Field(default=WEIGHTS, description="folder of the models that are served by name")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    anonymous: bool = Field(default=False, description="allow an interface other than loopback without keys")
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="accepted Host names beside loopback's, separated by commas"
    )
    keys: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="name:key of everybody who may ask, separated by commas; a key has 16 characters or more"
    )
    max_unfinished: int = Field(default=20_000, ge=1, description="jobs that one caller may have waiting or running")
    max_jobs: int = Field(default=200_000, ge=1, description="jobs of one caller on record, until they expire; then as many again")
    max_bytes: int = Field(default=100_000_000_000, ge=1, description="what one caller's jobs and models may keep in the store")
    max_versions: int = Field(default=1_000, ge=1, description="versions of models that one caller may have")
    max_training_s: int = Field(
        default=7 * 24 * 3600, ge=60, description="a training that runs longer, from its start or last resumption, fails"
    )
    retention_s: int = Field(
        default=7 * 24 * 3600,
        ge=1,
        description="artifacts of a reconstruction, and jobs that failed or were cancelled, are kept this long, "
        "unless they ask for another time",
    )
    webhook_secret: str | None = Field(
        default=None,
        description="signs the webhooks of a service without keys: whsec_ and base64, as in Standard Webhooks; without it none "
        "is sent",
    )
    webhook_secrets: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="name:whsec_... for each key whose jobs may have webhooks, separated by commas; a receiver that knows the "
        "secret of one key cannot sign for another",
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="hosts (or host:port) that webhooks may go to, separated by commas"
    )
    webhook_private: bool = Field(default=False, description="webhooks may go to private addresses, loopback included")
    log: Literal["text", "json"] = Field(default="text", description="how log lines are written")
    lease_s: float = Field(default=10.0, ge=5, description="a job whose heartbeat (every 2 s) stood still this long is lost")
    max_attempts: int = Field(default=3, ge=1, description="losses without a newer checkpoint before a job fails")
    progress_timeout_scale: float = Field(
        default=1.0,
        gt=0,
        description="times the seconds after which a job that makes no progress is taken for lost: a reconstruction's 300, a "
        "data set's 600, a training's 1,800; more on a very slow machine",
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [tuple(part.strip() for part in pair.split(":", 1)) for pair in value.split(",") if pair.strip()]
        for number, pair in enumerate(pairs, 1):
            _check_pair(number, pair)
        for what, listed in (("name", [pair[0] for pair in pairs]), ("key", [pair[1] for pair in pairs])):
            if again := [number for number, each in enumerate(listed, 1) if each in listed[: number - 1]]:
                raise ValueError(f"pair {again[0]} has the {what} of an earlier pair; every caller needs a {what} of its own")
        return {name: key for name, key in pairs}  # noqa: C416

    @field_validator("redis_url")
    @classmethod
    def _known_broker(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("expected an address that begins with redis://, rediss:// or unix://, such as redis://localhost:6379/0")
        if value is not None and not _is_broker(value):
            raise ValueError(
                "cannot be read; expected redis://:PASSWORD@host:port/number, with signs of the password such as / ? # @ : written "
                "as %2F %3F %23 %40 %3A"
            )
        return value

    @field_validator("artifacts_url")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and value.split("://")[0] not in fsspec.available_protocols():
            raise ValueError("expected a folder, or an address of a kind that fsspec knows, such as s3://bucket/prefix")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _decodable(cls, value: str | None) -> str | None:
        if value is not None and not _is_secret(value):
            raise ValueError("expected whsec_ followed by the base64 of 16 bytes or more")
        return value

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip().partition(":") for pair in value.split(",") if pair.strip()]
        if any(not name or not _is_secret(secret) for name, _, secret in pairs):
            raise ValueError("expected name:whsec_...,name:whsec_... with the names of keys, and the base64 of 16 bytes or more")
        secrets = {name: secret for name, _, secret in pairs}
        if len(set(secrets.values())) < len(pairs):
            raise ValueError("a name or a secret stands there twice; give each key a secret of its own")
        return secrets

    @field_validator("hosts", "webhook_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    def secret_of(self, caller: str) -> str | None:
        """What a caller's webhooks are signed with; None if they cannot be. Callers without a key share the common secret."""
        return self.webhook_secrets.get(caller) if caller else self.webhook_secret

    @property
    def quotas(self) -> dict[str, int]:
        """What one caller may have."""
        return {"unfinished": self.max_unfinished, "jobs": self.max_jobs, "bytes": self.max_bytes, "versions": self.max_versions}

    @property
    def socket(self) -> Path:
        """The embedded broker's socket: in the data folder, or elsewhere if its path would not do."""
        path = self.data / "broker" / "broker.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and re.fullmatch(r"[\w./-]+", str(path), re.ASCII):
            return path
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"sdfsrn-{os.getuid()}-{digest}" / "broker.sock"

    @property
    def broker_url(self) -> str:
        """The broker's address in the spelling of redis-py."""
        return self.redis_url or f"unix://{self.socket}"

    @property
    def celery_url(self) -> str:
        """The broker's address in the spelling of Celery, which would not look at a server's certificate unless told to."""
        url = self.broker_url
        if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
            url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
        return re.sub(r"^unix://", "redis+socket://", url)

    @property
    def store_url(self) -> str:
        """The artifact store's address."""
        return self.artifacts_url or str(self.data / "artifacts")


def read_settings(**given: object) -> Settings:
    """The settings of the environment, those `given` first; SystemExit 2 with a sentence for each that cannot be."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            name = PREFIX + "_".join(str(part) for part in each["loc"]).upper()
            print(f"{name}: {each['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        sys.exit(_EXIT_USAGE)


def _check_pair(number: int, pair: tuple[str, ...]) -> None:
    if len(pair) != 2 or not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", pair[0]):
        raise ValueError(f"pair {number} is no name:key; expected name:key,name:key with names of letters, digits, _ and -")
    if pair[0] == "everybody":
        raise ValueError(f"pair {number} has the name everybody, which stands for callers without a key; choose another")
    if not re.fullmatch(r"[!-~]{16,}", pair[1]):
        raise ValueError(
            f"pair {number} has a key of {len(pair[1])} characters; expected 16 or more, letters, digits and signs of ASCII alone"
        )
