"""The service over HTTP, for programs: submit a picture or a training, wait for it, fetch what it left."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ENDED = {"succeeded", "failed", "cancelled"}
POLL_S = 0.25


class ServiceError(RuntimeError):
    """The service refused a request; the message is its problem's title, detail and bad fields."""


class Client:
    """A connection to one service, by default $SDFSRN_URL's or http://127.0.0.1:8000."""

    def __init__(self, url: str = "http://127.0.0.1:8000") -> None:
        self._http = httpx.Client(base_url=url, timeout=90)

    def reconstruct(self, image: Path, mask: Path | None = None, **fields: Any) -> dict[str, Any]:
        """Submit a picture; `fields` are those of `POST /v1/reconstructions`. Returns the job."""
        files = {"image": (image.name, image.read_bytes())}
        if mask is not None:
            files["mask"] = (mask.name, mask.read_bytes())
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        return self._json(self._http.post("/v1/reconstructions", files=files, data=form))

    def train(self, **body: Any) -> dict[str, Any]:
        """Submit a training; `body` is that of `POST /v1/trainings`. Returns the job."""
        return self._json(self._http.post("/v1/trainings", json=body))

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's envelope."""
        return self._json(self._http.get(f"/v1/jobs/{job_id}"))

    def wait(self, job_id: str, progress: Callable[[dict[str, Any]], None] = lambda job: None) -> dict[str, Any]:
        """Wait until the job has ended; `progress` gets the envelope a few times a second."""
        while True:
            job = self.job(job_id)
            progress(job)
            if job["status"] in ENDED:
                return job
            time.sleep(POLL_S)

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Write all artifacts of a job into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        listing = self._http.get(f"/v1/jobs/{job_id}/artifacts")
        self._check(listing)
        paths = []
        for artifact in listing.json():
            answer = self._http.get(artifact["href"])
            self._check(answer)
            path = folder / Path(artifact["name"]).name
            path.write_bytes(answer.content)
            paths.append(path)
        return paths

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        self._check(answer)
        body: dict[str, Any] = answer.json()
        return body

    @staticmethod
    def _check(answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            problem = answer.json()
        except ValueError:
            raise ServiceError(f"{answer.status_code} {answer.text[:200]}") from None
        places = "; ".join(f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors", []))
        raise ServiceError(" - ".join(filter(None, (problem.get("title"), problem.get("detail"), places))))
