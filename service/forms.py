"""A multipart form becomes values and files: repeated fields or JSON for lists, JSON for numbers and objects."""

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from sdfsrn.images import MAX_BYTES
from service.errors import Problem

MAX_FIELDS = 500
MAX_FIELD_BYTES = 1_000_000
MAX_TEXT = 1_000_000  # characters of all fields together


@dataclass(frozen=True)
class Form:
    """What a form holds: plain values by name, files by name, these on the disk where they are large."""

    values: dict[str, Any]
    files: dict[str, UploadFile]

    def digest(self, name: str) -> str:
        """A file's SHA-256."""
        file = self.files[name].file
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def content(self, name: str) -> bytes:
        """A file's bytes."""
        file = self.files[name].file
        file.seek(0)
        return file.read()


@asynccontextmanager
async def received_form(
    request: Request, *, names: Collection[str], files: Collection[str], texts: Collection[str], lists: Collection[str]
) -> AsyncIterator[Form]:
    """A form with fields of these `names` and `files`, no others; its files are gone at the end.

    `texts` are taken as they are, `lists` may be repeated or JSON, everything else is JSON. What is empty counts as absent.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "multipart/form-data":
        raise Problem(415, "send multipart/form-data", field="content-type")
    async with open_form(request, max_files=len(files), max_fields=MAX_FIELDS) as form:
        _refuse_unknown(form, {*names, *files})
        parts = {name: filled for name in form if (filled := [part for part in form.getlist(name) if not _is_empty(part)])}
        uploads = {name: _file(name, parts[name]) for name in files if name in parts}
        values = {name: _value(name, parts[name], texts, lists) for name in parts if name not in files}
        yield Form(values, uploads)


def open_form(request: Request, *, max_files: int, max_fields: int) -> AbstractAsyncContextManager[FormData]:
    """The parts of a form in UTF-8: Starlette would decode, on the event loop, with any codec of Python's, the slowest included."""
    _, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Problem(415, "send the form in UTF-8: charset=utf-8, or none", field="content-type")
    return request.form(max_files=max_files, max_fields=max_fields, max_part_size=MAX_FIELD_BYTES)


@asynccontextmanager
async def received_body(request: Request) -> AsyncIterator[BinaryIO]:
    """A body as a file without a name, at its start: nothing of it is left behind, whatever happens."""
    with tempfile.TemporaryFile() as body:
        async for chunk in request.stream():
            await run_in_threadpool(body.write, chunk)
        body.seek(0)
        yield body


def _refuse_unknown(form: FormData, known: Collection[str]) -> None:
    """Before anything is parsed: neither unknown names nor more text than a form of ours can need."""
    if unknown := sorted(name for name in form if name not in known):
        expected = ", ".join(sorted(known))
        errors = [{"field": name, "message": f"there is no such field; expected are {expected}"} for name in unknown[:20]]
        raise Problem(422, f"unknown fields: {', '.join(unknown[:20])}; expected are {expected}", errors=errors)
    lengths = [(len(part), name) for name, part in form.multi_items() if isinstance(part, str)]
    if sum(length for length, _ in lengths) > MAX_TEXT:
        longest = max(lengths)[1]
        raise Problem(413, f"the fields hold more than {MAX_TEXT} characters, most of them in {longest}", field=longest)


def _is_empty(part: UploadFile | str) -> bool:
    """Whether it is what a browser sends for a field that was left empty."""
    return not part if isinstance(part, str) else not part.filename and not part.size


def _file(name: str, parts: list[UploadFile | str]) -> UploadFile:
    if len(parts) > 1:
        raise Problem(422, f"{name} was sent more than once", field=name)
    if not isinstance(parts[0], UploadFile):
        raise Problem(422, f"{name} must be a file, with a file name in its part", field=name)
    if (parts[0].size or 0) > MAX_BYTES:
        raise Problem(413, f"the file has more than {MAX_BYTES} bytes", field=name)
    return parts[0]


def _value(name: str, parts: list[UploadFile | str], texts: Collection[str], lists: Collection[str]) -> Any:
    texts_sent = [part for part in parts if isinstance(part, str)]
    if len(texts_sent) < len(parts):
        raise Problem(422, f"{name} must not be a file", field=name)
    if name in lists:
        return _list(name, texts_sent, plain=name in texts)
    if len(texts_sent) > 1:
        raise Problem(422, f"{name} was sent more than once", field=name)
    return texts_sent[0] if name in texts else _json(name, texts_sent[0])


def _list(name: str, texts: list[str], *, plain: bool) -> Any:
    if len(texts) == 1 and (not plain or texts[0].lstrip().startswith("[")):
        single = _json(name, texts[0])
        return [single] if isinstance(single, dict) and "azimuth_deg" in single else single
    return texts if plain else [_json(name, text) for text in texts]


def _json(name: str, text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise Problem(422, f"{name} must not contain {constant}", field=name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Problem(422, f"{name} is not valid JSON, as numbers, lists and objects must be here", field=name) from None
