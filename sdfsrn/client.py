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
    """A connection to one service. Every method raises ServiceError when the service refuses or cannot be reached."""

    def __init__(self, url: str = "http://127.0.0.1:8000") -> None:
        self._http = httpx.Client(base_url=url, timeout=90)
        self._url = url

    def reconstruct(self, image: Path, mask: Path | None = None, **fields: Any) -> dict[str, Any]:
        """Submit a picture; `fields` are those of `POST /v1/reconstructions`. Returns the job."""
        files = {"image": (image.name, image.read_bytes())}
        if mask is not None:
            files["mask"] = (mask.name, mask.read_bytes())
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        return dict(self._ask("POST", "/v1/reconstructions", files=files, data=form).json())

    def train(self, **body: Any) -> dict[str, Any]:
        """Submit a training; `body` is that of `POST /v1/trainings`. Returns the job."""
        return dict(self._ask("POST", "/v1/trainings", json=body).json())

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's envelope."""
        return dict(self._ask("GET", f"/v1/jobs/{job_id}").json())

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
        paths = []
        for artifact in self._ask("GET", f"/v1/jobs/{job_id}/artifacts").json():
            path = folder / Path(artifact["name"]).name
            path.write_bytes(self._ask("GET", artifact["href"]).content)
            paths.append(path)
        return paths

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise ServiceError(f"no service answers at {self._url} ({error}); `make up` starts one") from error
        if answer.is_success:
            return answer
        try:
            problem = answer.json()
        except ValueError:
            raise ServiceError(f"{answer.status_code} {answer.text[:200]}") from None
        places = "; ".join(f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors", []))
        raise ServiceError(f"{problem.get('title')}: {places or problem.get('detail')}")
