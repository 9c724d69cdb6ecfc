"""The model registry: names, versions and aliases, and where each version's checkpoint lies.

A fresh start serves what lies in the weights folder, as version 1 of its name. Trainings and uploads add versions, of which
the broker keeps a card each; their files lie in the artifact store under `models/`.
"""

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from sdfsrn.checkpoint_header import FileFacts, read_facts, without_state
from service.artifacts import Artifacts, StorageError, Stored
from service.callers import may_see
from service.errors import Problem
from service.jobs import Full, Jobs, new_id, now
from service.registry import EVERYBODY, Card, first_version, model_key
from service.settings import Settings

_NAMES_SHOWN = 20

_log = logging.getLogger(__name__)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (" and others" if len(names) > _NAMES_SHOWN else "")


@dataclass(frozen=True)
class Model:
    """A name with all its versions and aliases."""

    name: str
    owner: str
    versions: dict[int, Card]
    aliases: dict[str, int]

    @property
    def latest(self) -> int:
        """The version that the name alone means."""
        return max(self.versions)

    def number(self, wanted: str) -> int | None:
        """The version that a number or an alias means; None if there is none."""
        if not wanted:
            return self.latest
        number = self.aliases.get(wanted) or (int(wanted) if wanted.isdecimal() and len(wanted) < 10 else 0)
        return number if number in self.versions else None


class Models:
    """What a request may call `model`, and where a worker finds it."""

    def __init__(self, settings: Settings, jobs: Jobs, artifacts: Artifacts) -> None:
        self._weights = settings.weights
        self._quotas = settings.quotas
        self._jobs = jobs
        self._artifacts = artifacts

    @cached_property
    def shipped(self) -> dict[str, Card]:
        """What the weights folder holds: version 1 of each name."""
        return {path.stem: _card_of_file(path) for path in sorted(self._weights.glob("*.safetensors"))}

    def names(self, caller: str) -> list[str]:
        """Of every model that a caller sees."""
        return sorted({*self.shipped, *self._jobs.model_names(EVERYBODY), *self._jobs.model_names(caller)})

    def load(self, names: list[str], caller: str) -> list[Model]:
        """Those of the names that there are; the caller's own go before everybody's of the same name."""
        owners = list(dict.fromkeys((caller, EVERYBODY)))
        records = iter(self._jobs.models([(owner, name) for name in names for owner in owners]))
        found = (self._first_found(name, [(owner, next(records)) for owner in owners]) for name in names)
        return [model for model in found if model is not None]

    def find(self, name: str, caller: str) -> Model | None:
        """The caller's model of that name, or everybody's."""
        return next(iter(self.load([name], caller)), None)

    def _first_found(self, name: str, records: list[tuple[str, dict[str, str]]]) -> Model | None:
        for owner, record in records:
            versions = {int(key[8:]): Card(**json.loads(value)) for key, value in record.items() if key.startswith("version ")}
            if owner == EVERYBODY and name in self.shipped:
                versions[1] = self.shipped[name]
            if versions:
                aliases = {key[6:]: int(value) for key, value in record.items() if key.startswith("alias ")}
                return Model(name, owner, versions, aliases)
        return None

    def resolve(self, name: str, field_name: str, caller: str) -> tuple[dict[str, Any], Card]:
        """What the envelope says of a model, and its card; a Problem naming the field if there is no such model."""
        if name.startswith("job:"):
            return {"name": name, "version": 1}, self.of_job(name.removeprefix("job:"), field_name, caller)
        plain, _, wanted = name.partition("@")
        model = self.find(plain, caller)
        number = model.number(wanted) if model else None
        if model is None:
            known = _some(self.names(caller))
            raise Problem(
                422, f"there is no model {plain!r}; known are: {known or 'none'}, and job:{{id}} of a training", field=field_name
            )
        if number is None:
            known = _some([*map(str, sorted(model.versions, reverse=True)), *sorted(model.aliases)])
            raise Problem(422, f"model {plain!r} has no version or alias {wanted!r}; it has: {known}", field=field_name)
        return {"name": plain, "version": number}, model.versions[number]

    def of_job(self, job_id: str, field_name: str, caller: str) -> Card:
        """The checkpoint of a training that succeeded."""
        job = self._jobs.get(job_id)
        if job is None or job.type != "training" or not may_see(caller, job):
            raise Problem(422, "there is no such training", field=field_name)
        if job.expired:
            raise Problem(422, "what that training made is kept no more", field=field_name)
        for file in job.files:
            if file["name"] == "checkpoint.safetensors":
                # as its worker ran it; a job of an older version says all of it in its parameters
                config = job.provenance.get("config") or job.params["config"]
                networks = {size: config[size] for size in ("latent_dim", "hidden_dim", "symmetry") if size in config}
                source = {name: file[name] for name in ("key", "bytes", "sha256")}
                return Card(file["sha256"], file["bytes"], networks, source, job.finished_at, job.id, job.metrics)
        raise Problem(422, f"that training has no checkpoint, its status is {job.status}", field=field_name)

    def first(self, owner: str, name: str) -> int:
        """The lowest version number that can be published."""
        return first_version(self._weights, owner, name)

    def publish_job(self, name: str, job_id: str, caller: str) -> int:
        """Make a training's checkpoint, without what only resuming needs, a version of a model; one version per training."""
        card = self.of_job(job_id, "job", caller)
        if number := self._number_of(f"job {job_id}", name, caller):
            return number
        try:
            served = without_state(self._artifacts.read(card.source["key"]))
            facts = read_facts(served)
        except ValueError as error:
            raise Problem(422, f"that training's checkpoint cannot be served: {error}", field="job") from None
        stored = self._artifacts.put(model_key(caller, name, new_id()), served)
        card = replace(
            card, digest=facts.digest, bytes=stored["bytes"], networks=facts.networks, source=dict(stored), created_at=now()
        )
        return self._publish(f"job {job_id}", name, caller, card)

    def publish_file(self, name: str, file: BinaryIO, facts: FileFacts, caller: str) -> int:
        """Make an uploaded file a version of a model; the same bytes are one version only."""
        if number := self._number_of(f"file {facts.digest}", name, caller):
            return number
        stored: Stored = self._artifacts.put_stream(model_key(caller, name, new_id()), file)
        card = Card(facts.digest, stored["bytes"], facts.networks, dict(stored), now())
        return self._publish(f"file {facts.digest}", name, caller, card)

    def _number_of(self, source: str, name: str, caller: str) -> int | None:
        """The version that a source was published as."""
        record = self._jobs.models([(caller, name)])[0]
        return int(record[f"of {source}"]) if f"of {source}" in record else None

    def _publish(self, source: str, name: str, caller: str, card: Card) -> int:
        """Name what was stored just now; it is removed again if there is no room for it, or if another call was first."""
        try:
            number = self._jobs.publish(caller, name, self.first(caller, name), source, card.dump(), self._quotas)
        except Full:
            self._discard(card)
            raise
        model = self.find(name, caller)
        if model is None or number not in model.versions or model.versions[number].source != card.source:
            self._discard(card)
        return number

    def withdraw(self, model: Model, number: int | None) -> None:
        """Remove one version of a model, or all, with their files."""
        gone = [number] if number is not None else list(model.versions)
        if model.owner == EVERYBODY and model.name in self.shipped and 1 in gone:
            raise Problem(409, f"version 1 of {model.name} came with the service and cannot be removed")
        self._jobs.withdraw(model.owner, model.name, number)
        for version in gone:
            self._discard(model.versions[version])

    def _discard(self, card: Card) -> None:
        try:
            self._artifacts.remove(card.source["key"])
        except StorageError as error:
            _log.warning("%s is left to the keeper: %s", card.source["key"], error)


def _card_of_file(path: Path) -> Card:
    data = path.read_bytes()
    facts = read_facts(data)
    described = path.with_suffix(".json")
    card = json.loads(described.read_text()) if described.is_file() else {}
    source = {"file": path.name, "sha256": facts.digest}
    return Card(facts.digest, len(data), facts.networks, source, evaluation=card.get("evaluation", card))
