"""The service over HTTP, for programs: submit a picture or a training, follow it, fetch what it left.

`Client` waits, `AsyncClient` awaits; their methods are the same. Both go on where they were after a lost connection, and send
a request again that the service cannot serve yet (429 and 503, after the time in `Retry-After`). Every request that creates a
job carries an `Idempotency-Key`, so that one sent twice makes one job.
"""

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import httpx

ENDED = frozenset({"succeeded", "failed", "cancelled"})
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(60, connect=10)
PATIENCE_S = 120.0
AGAIN_AFTER_S = 1.0
_Content = TypeVar("_Content")
_ZIP = {"Content-Type": "application/zip"}


class ServiceError(RuntimeError):
    """The service refused a request, or there is none; the message says why.

    `status` and the bad `fields` by name are those of its answer; `retry_after_s` is set where it said when to ask again.
    """

    def __init__(
        self, message: str, status: int | None = None, fields: dict[str, str] | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields or {}
        self.retry_after_s = retry_after_s


class _NotNow(Exception):
    """An answer that may be another one soon."""

    def __init__(self, refusal: ServiceError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


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
    """A connection to one service. Every method raises ServiceError when the service refuses or cannot be reached.

    A service that was there and is away, or asks to come back later, is waited for, at most `patience_s` seconds.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._http = httpx.Client(base_url=_address(url), timeout=TIMEOUT, headers=_headers(key))
        self._patience_s = patience_s

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

        `options` are the query parameters of `POST /v1/datasets`: `skip_bad`, `recentre`, `name`, `metadata`, `webhook_url`.
        """
        headers = _ZIP | _idempotency(idempotency_key)
        return _job(self._ask("POST", "/v1/datasets", archive, headers=headers, params=_texts(options)))

    def job(self, job_id: str) -> Job:
        """Look at a job."""
        return _job(self._ask("GET", f"{_path(job_id)}"))

    def jobs(self, **wanted: Any) -> Iterator[Job]:
        """All jobs, newest first; `wanted` are the filters of `GET /v1/jobs`."""
        while True:
            page = _page(self._ask("GET", "/v1/jobs", params=wanted))
            yield from (_as_job(envelope) for envelope in page["items"])
            if page["next_cursor"] is None:
                return
            wanted = {**wanted, "cursor": page["next_cursor"]}

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return _job(self._ask("POST", f"{_path(job_id)}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Ask a training to stop for a while."""
        return _job(self._ask("POST", f"{_path(job_id)}/pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused training go on."""
        return _job(self._ask("POST", f"{_path(job_id)}/resume"))

    def delete(self, job_id: str) -> None:
        """End a job and remove what it made."""
        self._ask("DELETE", f"{_path(job_id)}")

    def events(self, job_id: str, after: str | None = None) -> Iterator[Event]:
        """What happens to a job, from its beginning or from after an event, until its end."""
        lost = _Patience(self._http.base_url, self._patience_s, was_there=True)
        while True:
            try:
                with self._http.stream("GET", f"{_path(job_id)}/events", headers=_event_headers(after)) as answer:
                    if not answer.is_success:
                        answer.read()
                    _check(answer, "text/event-stream")
                    lost.forget()
                    lines = _EventLines()
                    for line in answer.iter_lines():
                        if event := lines.take(line):
                            after = event.id
                            yield event
                            if event.kind == "end":
                                return
                seconds = AGAIN_AFTER_S  # the service ends, another process of it goes on
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            time.sleep(seconds)

    def wait(self, job_id: str, on_event: Callable[[Event], None] = _no_event) -> Job:
        """Wait until a job has ended."""
        for event in self.events(job_id):
            on_event(event)
        return self.job(job_id)

    def artifacts(self, job_id: str) -> list[Artifact]:
        """What a job made."""
        return _artifacts(self._ask("GET", f"{_path(job_id)}/artifacts"))

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Write all artifacts of a job into a folder; each file is there whole, with the right digest, or not at all.

        Raises ServiceError with the reason if the job has none.
        """
        found = self.artifacts(job_id)
        if not found:
            raise ServiceError(_nothing_of(self.job(job_id)))
        folder.mkdir(parents=True, exist_ok=True)
        return [self._download(artifact, folder) for artifact in found]

    def _download(self, artifact: Artifact, folder: Path) -> Path:
        lost = _Patience(self._http.base_url, self._patience_s, was_there=True)
        while True:
            target = _Target(artifact, folder)
            try:
                with target, self._http.stream("GET", artifact.href) as answer:
                    if not answer.is_success:
                        answer.read()
                    _check(answer)
                    for chunk in answer.iter_bytes():
                        target.write(chunk)
                return target.path
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            time.sleep(seconds)

    def _ask(self, method: str, path: str, file: Path | None = None, **content: Any) -> httpx.Response:
        lost = _Patience(self._http.base_url, self._patience_s)
        while True:
            try:
                if file is None:
                    return _check_again(self._http.request(method, path, **content), lost)
                with file.open("rb") as body:
                    return _check_again(self._http.request(method, path, content=body, **content), lost)
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            time.sleep(seconds)


class AsyncClient:
    """As `Client`, for programs that await."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._http = httpx.AsyncClient(base_url=_address(url), timeout=TIMEOUT, headers=_headers(key))
        self._patience_s = patience_s

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

        `options` are the query parameters of `POST /v1/datasets`: `skip_bad`, `recentre`, `name`, `metadata`, `webhook_url`.
        """
        size = {"Content-Length": str(archive.stat().st_size)}  # else it would be sent in chunks of unknown number
        headers = _ZIP | size | _idempotency(idempotency_key)
        return _job(await self._ask("POST", "/v1/datasets", archive, headers=headers, params=_texts(options)))

    async def job(self, job_id: str) -> Job:
        """Look at a job."""
        return _job(await self._ask("GET", f"{_path(job_id)}"))

    async def jobs(self, **wanted: Any) -> AsyncIterator[Job]:
        """All jobs, newest first; `wanted` are the filters of `GET /v1/jobs`."""
        while True:
            page = _page(await self._ask("GET", "/v1/jobs", params=wanted))
            for envelope in page["items"]:
                yield _as_job(envelope)
            if page["next_cursor"] is None:
                return
            wanted = {**wanted, "cursor": page["next_cursor"]}

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return _job(await self._ask("POST", f"{_path(job_id)}/cancel"))

    async def pause(self, job_id: str) -> Job:
        """Ask a training to stop for a while."""
        return _job(await self._ask("POST", f"{_path(job_id)}/pause"))

    async def resume(self, job_id: str) -> Job:
        """Let a paused training go on."""
        return _job(await self._ask("POST", f"{_path(job_id)}/resume"))

    async def delete(self, job_id: str) -> None:
        """End a job and remove what it made."""
        await self._ask("DELETE", f"{_path(job_id)}")

    async def events(self, job_id: str, after: str | None = None) -> AsyncIterator[Event]:
        """What happens to a job, from its beginning or from after an event, until its end."""
        lost = _Patience(self._http.base_url, self._patience_s, was_there=True)
        while True:
            try:
                async with self._http.stream("GET", f"{_path(job_id)}/events", headers=_event_headers(after)) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    _check(answer, "text/event-stream")
                    lost.forget()
                    lines = _EventLines()
                    async for line in answer.aiter_lines():
                        if event := lines.take(line):
                            after = event.id
                            yield event
                            if event.kind == "end":
                                return
                seconds = AGAIN_AFTER_S  # the service ends, another process of it goes on
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            await asyncio.sleep(seconds)

    async def wait(self, job_id: str, on_event: Callable[[Event], None] = _no_event) -> Job:
        """Wait until a job has ended."""
        async for event in self.events(job_id):
            on_event(event)
        return await self.job(job_id)

    async def artifacts(self, job_id: str) -> list[Artifact]:
        """What a job made."""
        return _artifacts(await self._ask("GET", f"{_path(job_id)}/artifacts"))

    async def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Write all artifacts of a job into a folder; each file is there whole, with the right digest, or not at all.

        Raises ServiceError with the reason if the job has none.
        """
        found = await self.artifacts(job_id)
        if not found:
            raise ServiceError(_nothing_of(await self.job(job_id)))
        folder.mkdir(parents=True, exist_ok=True)
        return [await self._download(artifact, folder) for artifact in found]

    async def _download(self, artifact: Artifact, folder: Path) -> Path:
        lost = _Patience(self._http.base_url, self._patience_s, was_there=True)
        while True:
            target = _Target(artifact, folder)
            try:
                with target:
                    async with self._http.stream("GET", artifact.href) as answer:
                        if not answer.is_success:
                            await answer.aread()
                        _check(answer)
                        async for chunk in answer.aiter_bytes():
                            target.write(chunk)
                return target.path
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            await asyncio.sleep(seconds)

    async def _ask(self, method: str, path: str, file: Path | None = None, **content: Any) -> httpx.Response:
        lost = _Patience(self._http.base_url, self._patience_s)
        while True:
            try:
                body = None if file is None else _pieces(file)
                return _check_again(await self._http.request(method, path, content=body, **content), lost)
            except (httpx.TransportError, _NotNow) as error:
                seconds = lost.wait_s(error)
            await asyncio.sleep(seconds)


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
    """How long a service may be away, or ask to come back later, before its client gives up."""

    def __init__(self, url: httpx.URL, seconds: float, *, was_there: bool = False) -> None:
        self._url = url
        self._seconds = seconds
        self._was_there = was_there
        self._since: float | None = None

    @property
    def has_waited(self) -> bool:
        """Whether a request was sent before whose answer was lost, or put off."""
        return self._since is not None

    def forget(self) -> None:
        """It is there again."""
        self._since = None

    def wait_s(self, error: httpx.TransportError | _NotNow) -> float:
        """How long to wait before asking again; raises ServiceError where that is of no use, or was tried long enough.

        A service that does not answer the first request at all is none; one that was there is being started again.
        """
        refusal = error.refusal if isinstance(error, _NotNow) else _unreachable(error, self._url)
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise refusal from error
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._was_there:
            raise refusal from error
        self._was_there = True
        moment = time.monotonic()
        self._since = self._since if self._since is not None else moment
        seconds = max(AGAIN_AFTER_S, refusal.retry_after_s or 0.0)
        if moment + seconds - self._since > self._seconds:
            raise refusal from error
        return seconds


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


def _address(url: str) -> httpx.URL:
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        found = httpx.URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise ServiceError(f"{url} is no address of a service; expected one like {DEFAULT_URL}")
    return found


def _path(job_id: str) -> str:
    if not job_id.isalnum() or not job_id.isascii():
        raise ServiceError(f"{job_id!r} is no id of a job; expected letters and digits, as the service gave them", 404)
    return f"/v1/jobs/{job_id}"


def _headers(key: str | None) -> dict[str, str]:
    if key and not (key.isascii() and key.isprintable()):
        raise ServiceError("the key has characters that no key has; expected letters, digits and signs of ASCII alone", 401)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid.uuid4().hex}


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
    return _understood(answer, _as_job)


def _page(answer: httpx.Response) -> dict[str, Any]:
    return _understood(answer, lambda page: {name: page[name] for name in ("items", "next_cursor")})


def _artifacts(answer: httpx.Response) -> list[Artifact]:
    names = [each.name for each in fields(Artifact)]
    return _understood(answer, lambda listed: [Artifact(**{name: item[name] for name in names}) for item in listed])


def _understood(answer: httpx.Response, read: Callable[[Any], _Content]) -> _Content:
    """What an answer holds; a ServiceError if it is none that this client knows."""
    try:
        return read(answer.json())
    except (ValueError, KeyError, TypeError):
        raise _foreign(answer) from None


def _foreign(answer: httpx.Response) -> ServiceError:
    kind = answer.headers.get("content-type", "no content type")
    return ServiceError(
        f"what answers at {answer.url} is no sdfsrn service, or one of another version ({answer.status_code}, {kind}); "
        "check the address, or install the version of the service"
    )


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


def _nothing_of(job: Job) -> str:
    """Why a job has no artifacts."""
    if not job.ended:
        return f"job {job.id} is {job.status}: it has no artifacts yet"
    if job.envelope.get("expires_at") and job.status == "succeeded":
        return f"job {job.id} has no artifacts; they were kept until {job.envelope['expires_at']}"
    return f"job {job.id} {cause(job)}: it has no artifacts"


def cause(job: Job) -> str:
    """How a job ended, with the reason where there is one: `succeeded`, `was cancelled`, `failed (reason)`."""
    if job.status == "cancelled":
        return "was cancelled"
    detail = (job.error or {}).get("detail")
    return f"{job.status} ({detail})" if detail else job.status


def _unreachable(error: Exception, url: httpx.URL) -> ServiceError:
    return ServiceError(f"no service answers at {url} ({error}); `make up` starts one")


def _check(answer: httpx.Response, kind: str = "") -> httpx.Response:
    """The answer, if it is a success, and of that media type; _NotNow or ServiceError if it is not."""
    if answer.is_success:
        if not answer.headers.get("content-type", "").startswith(kind):
            raise _foreign(answer)
        return answer
    refusal = _refusal(answer)
    if answer.status_code in (429, 502, 503, 504):
        raise _NotNow(refusal)
    raise refusal


def _check_again(answer: httpx.Response, lost: _Patience) -> httpx.Response:
    """As `_check`; what a repeated DELETE does not find, the one before removed, whose answer was lost."""
    if answer.request.method == "DELETE" and answer.status_code == 404 and lost.has_waited:
        return answer
    return _check(answer)


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        problem = answer.json()
        bad = {error.get("field", ""): error.get("message", "") for error in problem.get("errors", [])}
        title, detail = problem["title"], problem.get("detail")
    except (ValueError, KeyError, AttributeError, TypeError):
        return _foreign(answer)
    after = answer.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isdecimal() else None
    places = "; ".join(f"{name}: {message}" for name, message in bad.items())
    later = f"; try again in {after} s" if retry_after_s else ""
    return ServiceError(f"{title}: {places or detail}{later}", answer.status_code, bad, retry_after_s)
