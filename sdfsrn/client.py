"""The service over HTTP, for programs: submit a picture or a training, follow it, fetch what it left.

`Client` waits, `AsyncClient` awaits; their methods are the same. Both go on where they were after a lost connection.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx

ENDED = frozenset({"succeeded", "failed", "cancelled"})
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(60, connect=10)
LOST_FOR_S = 120.0  # a service that is away longer is not waited for
AGAIN_AFTER_S = 1.0
_ZIP = {"Content-Type": "application/zip"}


class ServiceError(RuntimeError):
    """The service refused a request; `status` and the bad `fields` by name are its problem's, the message says both."""

    def __init__(self, message: str, status: int | None = None, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields or {}


@dataclass(frozen=True)
class Job:
    """A job as the service described it; `envelope` is all of that."""

    id: str
    type: str
    status: str
    phase: str
    fraction: float
    metrics: dict[str, Any]
    error: dict[str, Any] | None
    envelope: dict[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: `kind` is status, progress, metric, log, gap or end."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A file that a job made; `view` is the direction it shows, if it shows one."""

    name: str
    kind: str
    media_type: str
    bytes: int
    sha256: str
    href: str
    view: dict[str, float] | None


def _no_event(_: Event) -> None:
    """Who does not care what happens."""


class Client:
    """A connection to one service. Every method raises ServiceError when the service refuses or cannot be reached."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, headers=_headers(key))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def reconstruct(self, image: Path, mask: Path | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Submit a picture; `fields` are those of `POST /v1/reconstructions`."""
        return _job(self._ask("POST", "/v1/reconstructions", **_picture_form(image, mask, fields, idempotency_key)))

    def train(self, *, idempotency_key: str | None = None, **body: Any) -> Job:
        """Submit a training; `body` is that of `POST /v1/trainings`."""
        return _job(self._ask("POST", "/v1/trainings", json=body, headers=_idempotency(idempotency_key)))

    def upload_dataset(self, archive: Path, *, idempotency_key: str | None = None, **options: Any) -> Job:
        """Send a zip of pictures, masks and cameras; the job that checks it, whose id is the data set's.

        `options` are the query parameters of `POST /v1/datasets`: `skip_bad`, `name`, `metadata`, `webhook_url`.
        """
        headers = _ZIP | _idempotency(idempotency_key)
        with archive.open("rb") as file:
            return _job(self._ask("POST", "/v1/datasets", content=file, headers=headers, params=_texts(options)))

    def job(self, job_id: str) -> Job:
        """Look at a job."""
        return _job(self._ask("GET", f"/v1/jobs/{job_id}"))

    def jobs(self, **wanted: Any) -> Iterator[Job]:
        """All jobs, newest first; `wanted` are the filters of `GET /v1/jobs`."""
        while True:
            page = self._ask("GET", "/v1/jobs", params=wanted).json()
            yield from (_as_job(envelope) for envelope in page["items"])
            if page["next_cursor"] is None:
                return
            wanted = {**wanted, "cursor": page["next_cursor"]}

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return _job(self._ask("POST", f"/v1/jobs/{job_id}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Ask a training to stop for a while."""
        return _job(self._ask("POST", f"/v1/jobs/{job_id}/pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused training go on."""
        return _job(self._ask("POST", f"/v1/jobs/{job_id}/resume"))

    def delete(self, job_id: str) -> None:
        """End a job and remove what it made."""
        self._ask("DELETE", f"/v1/jobs/{job_id}")

    def events(self, job_id: str, after: str | None = None) -> Iterator[Event]:
        """What happens to a job, from its beginning or from after an event, until its end."""
        lost = _Patience()
        while True:
            try:
                with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=_event_headers(after)) as answer:
                    if not answer.is_success:
                        answer.read()
                    _check(answer, away=True)
                    lost.forget()
                    lines = _EventLines()
                    for line in answer.iter_lines():
                        if event := lines.take(line):
                            after = event.id
                            yield event
                            if event.kind == "end":
                                return
            except httpx.TransportError as error:
                time.sleep(lost.wait_s(error, self._http.base_url))

    def wait(self, job_id: str, on_event: Callable[[Event], None] = _no_event) -> Job:
        """Wait until a job has ended."""
        for event in self.events(job_id):
            on_event(event)
        return self.job(job_id)

    def artifacts(self, job_id: str) -> list[Artifact]:
        """What a job made."""
        return [_artifact(each) for each in self._ask("GET", f"/v1/jobs/{job_id}/artifacts").json()]

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Write all artifacts of a job into a folder; each file is there whole, with the right digest, or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        return [self._download(artifact, folder) for artifact in self.artifacts(job_id)]

    def _download(self, artifact: Artifact, folder: Path) -> Path:
        target = _Target(artifact, folder)
        try:
            with target, self._http.stream("GET", artifact.href) as answer:
                if not answer.is_success:
                    answer.read()
                _check(answer)
                for chunk in answer.iter_bytes():
                    target.write(chunk)
        except httpx.TransportError as error:
            raise _unreachable(error, self._http.base_url) from error
        return target.path

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return _check(self._http.request(method, path, **content))
        except httpx.TransportError as error:
            raise _unreachable(error, self._http.base_url) from error


class AsyncClient:
    """As `Client`, for programs that await."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, headers=_headers(key))

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def reconstruct(self, image: Path, mask: Path | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Submit a picture; `fields` are those of `POST /v1/reconstructions`."""
        return _job(await self._ask("POST", "/v1/reconstructions", **_picture_form(image, mask, fields, idempotency_key)))

    async def train(self, *, idempotency_key: str | None = None, **body: Any) -> Job:
        """Submit a training; `body` is that of `POST /v1/trainings`."""
        return _job(await self._ask("POST", "/v1/trainings", json=body, headers=_idempotency(idempotency_key)))

    async def upload_dataset(self, archive: Path, *, idempotency_key: str | None = None, **options: Any) -> Job:
        """Send a zip of pictures, masks and cameras; the job that checks it, whose id is the data set's.

        `options` are the query parameters of `POST /v1/datasets`: `skip_bad`, `name`, `metadata`, `webhook_url`.
        """
        headers = _ZIP | _idempotency(idempotency_key)
        return _job(await self._ask("POST", "/v1/datasets", content=_pieces(archive), headers=headers, params=_texts(options)))

    async def job(self, job_id: str) -> Job:
        """Look at a job."""
        return _job(await self._ask("GET", f"/v1/jobs/{job_id}"))

    async def jobs(self, **wanted: Any) -> AsyncIterator[Job]:
        """All jobs, newest first; `wanted` are the filters of `GET /v1/jobs`."""
        while True:
            page = (await self._ask("GET", "/v1/jobs", params=wanted)).json()
            for envelope in page["items"]:
                yield _as_job(envelope)
            if page["next_cursor"] is None:
                return
            wanted = {**wanted, "cursor": page["next_cursor"]}

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return _job(await self._ask("POST", f"/v1/jobs/{job_id}/cancel"))

    async def pause(self, job_id: str) -> Job:
        """Ask a training to stop for a while."""
        return _job(await self._ask("POST", f"/v1/jobs/{job_id}/pause"))

    async def resume(self, job_id: str) -> Job:
        """Let a paused training go on."""
        return _job(await self._ask("POST", f"/v1/jobs/{job_id}/resume"))

    async def delete(self, job_id: str) -> None:
        """End a job and remove what it made."""
        await self._ask("DELETE", f"/v1/jobs/{job_id}")

    async def events(self, job_id: str, after: str | None = None) -> AsyncIterator[Event]:
        """What happens to a job, from its beginning or from after an event, until its end."""
        lost = _Patience()
        while True:
            try:
                async with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=_event_headers(after)) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    _check(answer, away=True)
                    lost.forget()
                    lines = _EventLines()
                    async for line in answer.aiter_lines():
                        if event := lines.take(line):
                            after = event.id
                            yield event
                            if event.kind == "end":
                                return
            except httpx.TransportError as error:
                await asyncio.sleep(lost.wait_s(error, self._http.base_url))

    async def wait(self, job_id: str, on_event: Callable[[Event], None] = _no_event) -> Job:
        """Wait until a job has ended."""
        async for event in self.events(job_id):
            on_event(event)
        return await self.job(job_id)

    async def artifacts(self, job_id: str) -> list[Artifact]:
        """What a job made."""
        return [_artifact(each) for each in (await self._ask("GET", f"/v1/jobs/{job_id}/artifacts")).json()]

    async def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Write all artifacts of a job into a folder; each file is there whole, with the right digest, or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        return [await self._download(artifact, folder) for artifact in await self.artifacts(job_id)]

    async def _download(self, artifact: Artifact, folder: Path) -> Path:
        target = _Target(artifact, folder)
        try:
            with target:
                async with self._http.stream("GET", artifact.href) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    _check(answer)
                    async for chunk in answer.aiter_bytes():
                        target.write(chunk)
        except httpx.TransportError as error:
            raise _unreachable(error, self._http.base_url) from error
        return target.path

    async def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return _check(await self._http.request(method, path, **content))
        except httpx.TransportError as error:
            raise _unreachable(error, self._http.base_url) from error


class _EventLines:
    """The lines of an event stream, put together (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def take(self, line: str) -> Event | None:
        """The event that a line completes, if it does."""
        name, _, value = line.partition(":")
        if line:
            self._parts[name] = value.removeprefix(" ")
            return None
        parts, self._parts = self._parts, {}
        return Event(parts.get("id", ""), parts["event"], json.loads(parts["data"])) if "event" in parts else None


class _Patience:
    """How long a service may be away before its client gives up."""

    def __init__(self) -> None:
        self._since: float | None = None

    def forget(self) -> None:
        """It is there again."""
        self._since = None

    def wait_s(self, error: httpx.TransportError, url: httpx.URL) -> float:
        """How long to wait before asking again; raises ServiceError when that was tried long enough."""
        self._since = self._since if self._since is not None else time.monotonic()
        if time.monotonic() - self._since > LOST_FOR_S:
            raise _unreachable(error, url) from error
        return AGAIN_AFTER_S


class _Target:
    """A file that appears under its name when it is whole and its digest is right."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        self.path = folder / Path(artifact.name).name
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._sha256, self._digest = artifact.sha256, hashlib.sha256()

    def __enter__(self) -> "_Target":
        self._file = self._partial.open("wb")
        return self

    def write(self, chunk: bytes) -> None:
        """More of it."""
        self._digest.update(chunk)
        self._file.write(chunk)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None and self._digest.hexdigest() == self._sha256:
            self._partial.replace(self.path)
            return
        self._partial.unlink()
        if kind is None:
            raise ServiceError(f"{self.path.name} arrived damaged; fetch it again")


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _event_headers(after: str | None) -> dict[str, str]:
    return {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}


def _picture_form(image: Path, mask: Path | None, fields: dict[str, Any], key: str | None) -> dict[str, Any]:
    files = {"image": (image.name, image.read_bytes())}
    if mask is not None:
        files["mask"] = (mask.name, mask.read_bytes())
    return {"files": files, "data": _texts(fields), "headers": _idempotency(key)}


def _texts(fields: dict[str, Any]) -> dict[str, str]:
    """Texts as they are, everything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def _job(answer: httpx.Response) -> Job:
    return _as_job(answer.json())


def _as_job(envelope: dict[str, Any]) -> Job:
    progress = envelope["progress"]
    return Job(
        envelope["id"],
        envelope["type"],
        envelope["status"],
        progress["phase"],
        progress["fraction"],
        envelope["metrics"],
        envelope["error"],
        envelope,
    )


def _artifact(described: dict[str, Any]) -> Artifact:
    return Artifact(**{each.name: described[each.name] for each in fields(Artifact)})


def _unreachable(error: Exception, url: httpx.URL) -> ServiceError:
    return ServiceError(f"no service answers at {url} ({error}); `make up` starts one")


def _check(answer: httpx.Response, *, away: bool = False) -> httpx.Response:
    """The answer, if the service did not refuse; one that cannot serve just now counts as lost if it may be `away`."""
    if answer.is_success:
        return answer
    if away and answer.status_code in (502, 503, 504):
        raise httpx.ReadError(f"{answer.status_code} {answer.reason_phrase}")
    try:
        problem = answer.json()
    except ValueError:
        raise ServiceError(f"{answer.status_code} {answer.text[:200]}", answer.status_code) from None
    fields = {error.get("field", ""): error.get("message", "") for error in problem.get("errors", [])}
    places = "; ".join(f"{name}: {message}" for name, message in fields.items())
    raise ServiceError(f"{problem.get('title')}: {places or problem.get('detail')}", answer.status_code, fields)
