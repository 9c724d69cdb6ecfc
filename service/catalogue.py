"""The models that are served by name: checkpoints in the weights folder, each with its card as JSON beside it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from service.artifacts import Stored
from service.errors import Problem
from service.jobs import Jobs
from service.schemas import ModelCard


class Catalogue:
    """What a request may call `model`, and where a worker finds it."""

    def __init__(self, weights: Path, jobs: Jobs) -> None:
        self._weights = weights
        self._jobs = jobs

    @cached_property
    def cards(self) -> dict[str, ModelCard]:
        """Every model by its name."""
        return {path.stem: _card(path) for path in sorted(self._weights.glob("*.safetensors"))}

    def resolve(self, name: str, field: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the envelope says of a model, and where it lies; a Problem with `field` if there is no such model."""
        if name.startswith("job:"):
            return {"name": name, "version": 1}, dict(self.of_job(name.removeprefix("job:"), field))
        plain, _, number = name.partition("@")
        card = self.cards.get(plain)
        if card is None or number not in ("", str(card.version)):
            known = ", ".join(sorted(self.cards)) or "none"
            raise Problem(422, f"there is no such model; known are: {known}, and job:{{id}} of a training", field=field)
        return {"name": plain, "version": card.version}, {"file": f"{plain}.safetensors", "sha256": card.digest}

    def networks(self, name: str) -> dict[str, int]:
        """`latent_dim` and `hidden_dim` of a model that `resolve` found, without reading its weights."""
        if name.startswith("job:"):
            job = self._jobs.get(name.removeprefix("job:"))
            config = job.params["config"] if job else {}
            return {size: config[size] for size in ("latent_dim", "hidden_dim") if size in config}
        return _networks(self._weights / f"{name.partition('@')[0]}.safetensors")

    def of_job(self, job_id: str, field: str) -> Stored:
        """The checkpoint of a training that succeeded."""
        job = self._jobs.get(job_id)
        if job is None or job.type != "training":
            raise Problem(422, "there is no such training", field=field)
        for file in job.files:
            if file["name"] == "checkpoint.safetensors":
                return {"key": file["key"], "bytes": file["bytes"], "sha256": file["sha256"]}
        raise Problem(422, f"that training has no checkpoint, its status is {job.status}", field=field)


def _networks(path: Path) -> dict[str, int]:
    """A safetensors file begins with the length of its header, then the header, JSON (safetensors' format description)."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    networks: dict[str, int] = json.loads(header["__metadata__"]["model"])
    return networks


def _card(path: Path) -> ModelCard:
    data = path.read_bytes()
    described = path.with_suffix(".json")
    card = json.loads(described.read_text()) if described.is_file() else {}
    return ModelCard(
        name=path.stem,
        version=1,
        digest=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        evaluation=card.get("evaluation", card),
    )
