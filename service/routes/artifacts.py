"""What jobs made: lists, single files with ranges and digests, everything as one zip."""

import base64
import hashlib
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from service.artifacts import Artifacts
from service.callers import CallerOf
from service.context import Context, ContextOf
from service.errors import Problem
from service.jobs import Job
from service.routes.finding import NOT_FOUND, find_job
from service.schemas import Artifact, ProblemDocument

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

_GONE: dict[int | str, dict[str, Any]] = {
    **NOT_FOUND,
    410: {"model": ProblemDocument, "description": "kept long enough, and removed"},
}
_BINARY: dict[str, Any] = {"content": {"*/*": {}}}
_PLAIN_DATE = (1980, 1, 1, 0, 0, 0)  # a zip cannot be older, and the same files make the same archive


@router.get("/artifacts", responses=_GONE, summary="List what a job made")
def list_artifacts(job_id: str, context: ContextOf, caller: CallerOf) -> list[Artifact]:
    """An empty list until the job has succeeded."""
    return [
        Artifact(
            **{name: file[name] for name in ("name", "kind", "media_type", "bytes", "sha256", "view")},
            href=f"/v1/jobs/{job_id}/artifacts/{file['name']}",
        )
        for file in _kept(context, caller, job_id).files
    ]


@router.get(
    "/artifacts/{name}",
    response_class=Response,
    summary="Fetch a file",
    responses={
        **_GONE,
        200: _BINARY,
        206: {**_BINARY, "description": "the part that was asked for"},
        304: {"description": "the ETag is the one you have"},
        416: {"model": ProblemDocument},
    },
)
def get_artifact(
    job_id: str,
    name: str,
    context: ContextOf,
    caller: CallerOf,
    if_none_match: Annotated[list[str] | None, Header()] = None,
    wanted: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes, or one range of them; the ETag is the SHA-256."""
    job = _kept(context, caller, job_id)
    file = next((file for file in job.files if file["name"] == name), None)
    if file is None:
        raise Problem(404, "the job has no such artifact" if job.ended else f"the job is {job.status}, it has no artifacts yet")
    etag, size = f'"{file["sha256"]}"', int(file["bytes"])
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        "Repr-Digest": _digest(bytes.fromhex(file["sha256"])),
    }
    if _names(if_none_match, file["sha256"]):
        return Response(status_code=304, headers=headers)
    part = _range(wanted, size) if if_range is None or if_range.strip() == etag else None
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Content-Digest"] = _digest_of(_begun(lambda: context.artifacts.chunks(file["key"], start, end)))
    else:
        headers["Content-Digest"] = headers["Repr-Digest"]
    content = _begun(lambda: context.artifacts.chunks(file["key"], start, end))
    return StreamingResponse(content, 206 if part else 200, headers, media_type=file["media_type"])


@router.get(
    "/archive",
    response_class=Response,
    summary="Fetch everything as one zip",
    responses={**_GONE, 200: _BINARY, 409: {"model": ProblemDocument, "description": "the job has made nothing, or nothing yet"}},
)
def get_archive(job_id: str, context: ContextOf, caller: CallerOf) -> Response:
    """A zip without compression (pictures are compressed already), made while it is sent."""
    job = _kept(context, caller, job_id)
    if not job.files:
        raise Problem(409, _nothing_of(job), headers={} if job.ended else {"Retry-After": "1"})
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.zip"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_begun(lambda: _zip(context.artifacts, job)), headers=headers, media_type="application/zip")


def _kept(context: Context, caller: str, job_id: str) -> Job:
    job = find_job(context, caller, job_id)
    if job.expired:
        raise Problem(410, f"what this job made was kept until {job.expires_at} and is removed")
    return job


def _nothing_of(job: Job) -> str:
    if not job.ended:
        return f"the job is {job.status}, it has no artifacts yet; ask again when it has succeeded"
    reason = (job.error or {}).get("detail")
    return f"the job {job.status}, it has no artifacts" + (f": {reason}" if reason else "")


def _names(tags: list[str] | None, sha256: str) -> bool:
    """Whether an If-None-Match names a file, by weak comparison: W/"x" is "x" (RFC 9110, 8.8.3.2 and 13.1.2)."""
    listed = ",".join(tags or ())
    return listed.strip() == "*" or sha256 in re.findall(r'"([^"]*)"', listed)


def _digest(sha256: bytes) -> str:
    """RFC 9530."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def _digest_of(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return _digest(digest.digest())


def _range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the one range asked for (RFC 9110, 14.2); None, which means all, for any other form or for several."""
    found = re.fullmatch(r"\s*bytes\s*=\s*(\d{0,18})-(\d{0,18})\s*", wanted or "")
    if not found or not (found[1] or found[2]):
        return None
    if found[1]:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    else:
        start, end = max(0, size - int(found[2])), size
    if start >= end:
        raise Problem(416, f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _begun(pieces: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """With the first piece at hand: what cannot be read is then an error's answer, not one that breaks off."""
    try:
        rest = pieces()
        return itertools.chain([next(rest, b"")], rest)
    except FileNotFoundError:
        raise Problem(404, "the file is gone from the store") from None


def _zip(artifacts: Artifacts, job: Job) -> Iterator[bytes]:
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for file in job.files:
            entry = zipfile.ZipInfo(file["name"], _PLAIN_DATE)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=file["bytes"] >= 1 << 31) as target:
                for chunk in artifacts.chunks(file["key"], 0, int(file["bytes"])):
                    target.write(chunk)
                    yield outlet.take()
    yield outlet.take()


class _Outlet:
    """What zipfile writes to when nothing can be sought: it hands on what it got so far."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep for `take`."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """All that was written since the last time."""
        data, self._parts = b"".join(self._parts), []
        return data
