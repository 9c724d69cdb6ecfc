"""Log lines: plain for people, JSON for machines, each with the job and the trace that it belongs to."""

import json
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

_job: ContextVar[str] = ContextVar("job", default="")
_trace: ContextVar[str] = ContextVar("trace", default="")


def configure(process: str, form: Literal["text", "json"], output: Path | None = None) -> None:
    """Write this process's log to standard error, or to the end of a file."""
    handler = logging.FileHandler(output) if output else logging.StreamHandler()
    handler.addFilter(_add_place)
    handler.setFormatter(
        JsonLines(process) if form == "json" else logging.Formatter(f"%(asctime)s {process} %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextmanager
def about(job_id: str = "", trace: str = "") -> Iterator[None]:
    """Everything logged in the block belongs to this job and this trace."""
    tokens = [(variable, variable.set(value)) for variable, value in ((_job, job_id), (_trace, trace)) if value]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def trace_id(traceparent: str | None) -> str:
    """The trace that a W3C traceparent header names, or a new one: 32 hexadecimal digits."""
    found = re.fullmatch(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", (traceparent or "").strip().lower())
    return found[1] if found and set(found[1]) != {"0"} else secrets.token_hex(16)


def current_trace() -> str:
    """The trace of what is being done."""
    return _trace.get()


def _add_place(record: logging.LogRecord) -> bool:
    record.job_id, record.trace_id = _job.get(), _trace.get()
    return True


class JsonLines(logging.Formatter):
    """One object per line: time, level, process, logger, message, and job_id and trace_id where there are any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in ("job_id", "trace_id") if (value := getattr(record, name, ""))}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
