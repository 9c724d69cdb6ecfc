"""What a worker does with a job: load it, call one function of the library, store what that returns, end the job."""

import hashlib
import inspect
import json
import logging
import mimetypes
import re
import resource
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.checkpoint_header import read_facts
from sdfsrn.config import METHODS, ReconstructionConfig, SyntheticData, View
from sdfsrn.data.archive import BadDataset
from sdfsrn.data.captures import contact_sheet, read_captures
from sdfsrn.data.dataset import save_dataset
from sdfsrn.device import pick_device
from sdfsrn.images import Picture
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor
from sdfsrn.training import Interrupted, TrainingCollapsed, trainer
from service import logs
from service.artifacts import Artifacts, StorageError, job_key
from service.jobs import Job, Jobs, Publication, connect, now
from service.parameters import resolved_params
from service.queue import DATASET, RECONSTRUCTION
from service.registry import CONTACT_SHEET, VIEWS_FILE, Card, first_version, model_key
from service.settings import Settings
from worker.claim import STORING, Claim, Stopped, StoreAway, TookTooLong

MODELS_KEPT = 2
CHECKING_MEMORY = 6_000_000_000  # bytes of address space, beyond what stands before, for strangers' archives

_log = logging.getLogger(__name__)
_settings = Settings()
_artifacts = Artifacts(_settings.store_url)
_jobs = Jobs(connect(_settings))
_models: "OrderedDict[str, Reconstructor]" = OrderedDict()

NAMES_SHOWN = 50

Asked = TypeVar("Asked")

# How a job may fail: the message says all that is to be said.
_EXPECTED = (ReconstructionFailed, TrainingCollapsed, TookTooLong, ValueError)

# Names that the platform's table of types lacks, or spells in several ways.
_BYTES = "application/octet-stream"
_MEDIA_TYPES = {
    ".npy": _BYTES,
    ".safetensors": _BYTES,
    ".jsonl": "application/jsonl",
    ".glb": "model/gltf-binary",
    ".obj": "model/obj",
    ".ply": _BYTES,
    ".stl": "model/stl",
}


def prepare(queue: str) -> None:
    """Before the first job: load the default model where pictures come in, set limits where archives do."""
    if queue == DATASET:
        limit = psutil.Process().memory_info().vms + CHECKING_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    default = _settings.weights / "default.safetensors"
    if queue == RECONSTRUCTION and default.is_file():
        _models[hashlib.sha256(default.read_bytes()).hexdigest()] = Reconstructor.load(default)


def work_off(queue: str, worker: str) -> None:
    """Claim and do jobs until none waits."""
    while job := _jobs.claim(queue, worker, _settings.max_bytes, tuple(_RUNNERS)):
        work(job)


def work(job: Job) -> None:
    """Do one job to its end, whatever that is."""
    with logs.about(job.id, job.trace):
        _work(job)


def _work(job: Job) -> None:
    _log.info("job %s, attempt %s", job.id, job.attempt)
    with Claim(_settings, _jobs, job) as claim, _scratch(job) as folder:
        try:
            outcome = _RUNNERS[job.type](claim, folder)
            claim.check()
            files = _publishable(claim, folder)
            claim.finish("succeeded", files=files, **outcome)
        except Interrupted as interrupted:
            _log.info("job %s interrupted: %s; it is %s", job.id, interrupted, claim.release())
        except Stopped as stopped:
            _log.info("job %s stopped: %s", job.id, stopped)
            claim.finish("cancelled")
        except StoreAway as away:
            claim.log(f"the job is given up for now: {away}", "warning")
            _log.warning("job %s is given up for now: %s; it is %s", job.id, away, claim.lose(str(away)))
        except _EXPECTED as error:
            _log.info("job %s failed: %s", job.id, error)
            claim.finish("failed", error=_problem(job, error), provenance=_provenance(job))
        except Exception as error:
            _log.exception("job %s failed", job.id)
            claim.finish("failed", error=_problem(job, error), provenance=_provenance(job))


def _reconstruct(claim: Claim, folder: Path) -> dict[str, Any]:
    job = claim.job
    claim.progress("loading", 0, 1)
    model = _model(claim)
    picture = Picture.from_png(claim.retry(lambda: _artifacts.read(job_key(job.id, "input", "input.png"))))
    metrics = model.run(picture, _reconstruction_config(resolved_params(job)), folder, claim.progress)
    return {"metrics": metrics, "provenance": _provenance(job)}


def _train(claim: Claim, folder: Path) -> dict[str, Any]:
    """One whose checkpoint cannot be used, perhaps because another version wrote it, loses its steps and not its job."""
    claim.progress("loading", 0, 1)
    start = _resumed(claim, folder.with_suffix(".resume"))
    if start is None:
        return _trained(claim, folder, None)
    phases: set[str] = set()

    def progress(phase: str, *said: Any) -> None:
        phases.add(phase)
        claim.progress(phase, *said)

    try:
        return _trained(claim, folder, start, progress)
    except Exception as error:
        if "training" in phases or not _does_not_fit(error):
            raise
        _begins_anew(claim, error)
    return _trained(claim, folder, None)


def _does_not_fit(error: Exception) -> bool:
    """Whether a training may have failed because its checkpoint is another version's."""
    return isinstance(error, ValueError | KeyError) or "loading state_dict" in str(error)  # torch has no kind of its own for it


def _begins_anew(claim: Claim, error: Exception) -> None:
    _log.warning("job %s begins anew: %s", claim.job.id, error)
    claim.log(f"the training begins anew: {error}", "warning")


def _trained(
    claim: Claim, folder: Path, start: Path | None, progress: Callable[..., None] | None = None
) -> dict[str, Any]:
    job = claim.job
    params = _as_begun(job, start)
    method = params["method"]
    if method not in METHODS:
        raise ValueError(f"this version of the service does not know the method {method!r}, it has {', '.join(sorted(METHODS))}")
    config: Any = _as_asked(METHODS[method], params["config"])
    data = _fetched(claim, job.data, folder.with_suffix(".views")) if job.data else _synthetic(params["dataset"])
    parent = _fetched(claim, job.source, folder.with_suffix(".parent")) if job.source and not start else None
    last_key = job.checkpoint["key"] if job.checkpoint else None

    def on_checkpoint(path: Path, step: int) -> None:
        nonlocal last_key
        try:
            stored = _artifacts.put_file(job_key(job.id, job.fence, f"resume-{step:08d}.safetensors"), path)
        except StorageError as error:
            # the training is worth more than this one checkpoint: the next may be kept
            _log.warning("the checkpoint of job %s at step %s is not kept: %s", job.id, step, error)
            left = "the one before stays" if last_key else "there is none yet"
            claim.log(f"the checkpoint of step {step} could not be stored, {left}: {error}", "warning")
            return
        claim.checkpoint({**stored, "step": step})
        if last_key and last_key != stored["key"]:
            with suppress(StorageError):  # then the keeper removes it
                _artifacts.remove(last_key)
        last_key = stored["key"]

    metrics = trainer(method)(
        config,
        data,
        folder,
        resume_from=start,
        init_from=parent,
        progress=progress or claim.progress,
        on_checkpoint=on_checkpoint,
    )
    checkpoint = folder / "checkpoint.safetensors"
    digest = Checkpoint.load(checkpoint).dataset_digest
    outcome = {"metrics": metrics, "provenance": _provenance(job) | {"dataset_digest": digest, "config": asdict(config)}}
    return outcome | ({"publication": _publication(claim, checkpoint, metrics)} if job.params.get("publish_as") else {})


def _as_begun(job: Job, start: Path | None) -> dict[str, Any]:
    """The parameters of a training. One that goes on keeps the defaults that it began with, which this version may not have."""
    params = resolved_params(job)
    if start is None:
        return params
    begun = Checkpoint.load(start)
    begun_with = {"config": begun.config, "dataset": begun.data}
    for part in ("config", "dataset"):
        kept = {name: value for name, value in begun_with[part].items() if name in params[part]}
        params = params | {part: params[part] | kept | job.params.get(part, {})}
    return params


def _synthetic(dataset: dict[str, Any]) -> SyntheticData:
    known = {name: value for name, value in dataset.items() if name != "type"}
    return _as_asked(SyntheticData, known | {"families": tuple(known["families"])})


def _check_dataset(claim: Claim, folder: Path) -> dict[str, Any]:
    job = claim.job
    archive = folder.with_name("archive.zip")
    claim.progress("fetching", 0, 1)
    claim.retry(lambda: _artifacts.fetch(job_key(job.id, "input", "archive.zip"), archive, claim.going_on))
    options = {name: bool(job.params.get(name, False)) for name in ("skip_bad", "recentre")}
    captures = read_captures(archive, claim.progress, **options)
    claim.progress("writing", 0, 1)
    save_dataset(captures.views, captures.subjects, folder / VIEWS_FILE)
    contact_sheet(captures.views).save(folder / CONTACT_SHEET)
    (folder / "report.json").write_text(json.dumps(captures.report, indent=1))
    return {"metrics": _shortened(captures.report), "provenance": _provenance(job)}


def _shortened(report: dict[str, Any]) -> dict[str, Any]:
    """Of a data set's report what its record holds, which every list reads: no more names than people can."""
    agreement = report["agreement"]
    objects = {
        name: found | {"low": dict(list(found["low"].items())[:NAMES_SHOWN])}
        for name, found in list(agreement["objects"].items())[:NAMES_SHOWN]
    }
    short = {name: dict(list(report[name].items())[:NAMES_SHOWN]) for name in ("skipped", "centres") if name in report}
    return report | short | {"unused": report["unused"][:NAMES_SHOWN], "agreement": agreement | {"objects": objects}}


def _publication(claim: Claim, checkpoint: Path, metrics: dict[str, Any]) -> Publication:
    """Store what is to be served by name; it is named only if the job succeeds, and swept if not."""
    job = claim.job
    served = checkpoint.parent.with_suffix(".served")  # no artifact of the job
    Checkpoint.load(checkpoint).for_serving().save(served)
    facts = read_facts(served.read_bytes())
    name = str(job.params["publish_as"])
    stored = claim.retry(lambda: _artifacts.put_file(model_key(job.owner, name, job.id, job.fence), served))
    card = Card(facts.digest, stored["bytes"], facts.networks, dict(stored), now(), job.id, metrics)
    return Publication(name, first_version(_settings.weights, job.owner, name), card.dump())


_RUNNERS: dict[str, Callable[[Claim, Path], dict[str, Any]]] = {
    "reconstruction": _reconstruct,
    "training": _train,
    "dataset": _check_dataset,
}


def _as_asked(kind: type[Asked], values: dict[str, Any]) -> Asked:
    """A configuration as the record has it, perhaps from a service of another version, whose settings this one may lack."""
    unknown = sorted(set(values) - set(inspect.signature(kind).parameters))
    if unknown:
        raise ValueError(
            f"the job was taken in by another version of this service, whose setting {', '.join(unknown)} this one does not "
            "have; submit it again without it, or when all of the service has the same version"
        )
    return kind(**values)


def _reconstruction_config(params: dict[str, Any]) -> ReconstructionConfig:
    known_view = params["input_view"]
    parts = {
        "views": tuple(View(**view) for view in params["views"]),
        "input_view": View(**known_view) if known_view else None,
        "outputs": tuple(params["outputs"]),
    }
    return _as_asked(ReconstructionConfig, params | parts)


def _model(claim: Claim) -> Reconstructor:
    """The job's model, kept loaded: the last few by the digest of their file."""
    job = claim.job
    assert job.source is not None
    digest = job.source["sha256"]
    if digest not in _models:
        path = _fetched(claim, job.source, _scratch_folder(job).with_suffix(".model"))
        _models[digest] = Reconstructor.load(path)
    _models.move_to_end(digest)
    while len(_models) > MODELS_KEPT:
        _models.popitem(last=False)
    return _models[digest]


def _resumed(claim: Claim, path: Path) -> Path | None:
    """The checkpoint that a job has left so far; one that is damaged or gone costs the steps, not the job."""
    if claim.job.checkpoint is None:
        return None
    try:
        return _fetched(claim, claim.job.checkpoint, path)
    except ValueError as error:
        _begins_anew(claim, error)
        return None


def _fetched(claim: Claim, source: dict[str, Any], path: Path) -> Path:
    """A checkpoint, or a data set, as a local file: one of the weights folder lies here already, others come from the store.

    Raises ValueError if it is gone, or is not what was stored.
    """
    if "file" in source:
        shipped = _settings.weights / str(source["file"])
        if not shipped.is_file() or hashlib.sha256(shipped.read_bytes()).hexdigest() != source["sha256"]:
            raise ValueError(f"the model {shipped.stem} that was asked for is here no more: another version took its place")
        return shipped
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        digest = claim.retry(lambda: _artifacts.fetch(source["key"], path, claim.going_on))
    except FileNotFoundError:
        raise ValueError(f"{source['key']}, which this job needs, was removed") from None
    if digest != source["sha256"]:
        raise ValueError(f"{source['key']} is damaged: its digest is not the one that was stored")
    return path


def _publishable(claim: Claim, folder: Path) -> list[dict[str, Any]]:
    """Store every file of the folder under the job's fence, and describe it for the manifest."""
    job = claim.job
    views = resolved_params(job).get("views", [])
    files: list[dict[str, Any]] = []
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for path in paths:
        claim.progress(STORING, len(files), len(paths))
        numbered = re.fullmatch(r"(.+)_(\d{3})", path.stem)
        stored = claim.retry(partial(_artifacts.put_file, job_key(job.id, job.fence, path.name), path))
        files.append(
            {
                "name": path.name,
                "kind": numbered[1] if numbered else path.stem,
                "media_type": _MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or _BYTES,
                "view": views[int(numbered[2])] if numbered and int(numbered[2]) < len(views) else None,
                **stored,
            }
        )
    return files


def _provenance(job: Job) -> dict[str, Any]:
    params = resolved_params(job)
    config = params.get("config", params)
    return {
        "code_version": version("sdfsrn"),
        "torch_version": version("torch"),
        "seed": config.get("seed"),
        "device": str(pick_device("auto")),
        "model_digest": job.source["sha256"] if job.source else None,
    }


def _problem(job: Job, error: Exception) -> dict[str, Any]:
    kind = type(error).__name__
    expected = isinstance(error, _EXPECTED)
    found: dict[str, Any] = {
        "type": "urn:sdfsrn:problem:" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower(),
        "title": f"The {job.type} failed",
        "detail": str(error) if expected else f"{kind}: {error}",
    }
    if isinstance(error, BadDataset):
        found["errors"] = [{"field": name, "message": reason} for name, reason in error.files.items()]
    return found


def _scratch_folder(job: Job) -> Path:
    return _settings.data / "scratch" / f"{job.id}-{job.fence}" / "work"


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    folder = _scratch_folder(job)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the scratch folders of claims that nobody holds, or no longer: their process was killed."""
    root = _settings.data / "scratch"
    for folder in root.iterdir() if root.is_dir() else ():
        job_id, _, fence = folder.name.partition("-")
        job = _jobs.get(job_id)
        if job is None or job.status not in ("running", "cancelling", "pausing") or str(job.fence) != fence:
            shutil.rmtree(folder, ignore_errors=True)
