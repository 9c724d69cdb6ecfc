"""Requests and answers of the HTTP contract.

The fields of `config` and of a reconstruction are derived from the library's dataclasses: default, range and meaning
have one home, and a request is checked against the very limits that the library enforces.
"""

import dataclasses
import json
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    WithJsonSchema,
    create_model,
    model_validator,
)

from sdfsrn.config import METHODS, ReconstructionConfig, SyntheticData, View
from service.jobs import TYPES, Job, Status
from service.parameters import resolved_params
from service.registry import CONTACT_SHEET, VIEWS_FILE

_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
_MAX_METADATA = 50
_MAX_TEXT = 1000
_MAX_METADATA_BYTES = 16_000


def _scalar(value: object) -> object:
    if isinstance(value, str) and len(value) <= _MAX_TEXT and not _SURROGATE.search(value):
        return value
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= _MAX_NUMBER):
        return value
    raise ValueError(f"must be a text of at most {_MAX_TEXT} characters, a number within 2^53, true, false or null")


_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NUMBER = 2.0**53
Scalar = Annotated[
    Any,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"], "maxLength": _MAX_TEXT}),
]


def _short(metadata: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > _MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {_MAX_METADATA_BYTES} bytes as JSON in UTF-8, is {size}; refer to more by a link")
    return metadata


Metadata = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=100)], Scalar],
    Field(max_length=_MAX_METADATA, description=f"the caller's own names and values, {_MAX_METADATA_BYTES} bytes in all"),
    AfterValidator(_short),
]


WebhookUrl = Annotated[
    str | None,
    Field(max_length=2000, description="told when the job ends, as Standard Webhooks describes; the host must be allowed"),
]
ExpiresAfter = Annotated[
    Annotated[int, Strict()] | None,
    Field(ge=60, le=10 * 365 * 24 * 3600, description="seconds after its end for which what the job made is kept"),
]
ModelNameText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


def model_of(config: type, **overrides: Any) -> type[BaseModel]:
    """The request schema of a library dataclass; `overrides` replace or add fields, as for pydantic.create_model."""
    fields = {spec.name: (_schema_type(spec.type), _field(spec)) for spec in dataclasses.fields(config)}
    return create_model(config.__name__, __config__=_CLOSED, __doc__=config.__doc__, **{**fields, **overrides})


def _field(spec: "dataclasses.Field[Any]") -> Any:
    limits = {"ge": spec.metadata["low"], "le": spec.metadata["high"]}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    default = spec.default
    if spec.type in (tuple[View, ...],):
        default = [dataclasses.asdict(view) for view in spec.default]  # type: ignore[union-attr]
    return Field(default, description=spec.metadata["description"], validate_default=False, **limits)


def _schema_type(declared: Any) -> Any:
    """A dataclass becomes its schema, a number is taken only from a number."""
    if dataclasses.is_dataclass(declared):
        return model_of(declared)  # type: ignore[arg-type]
    if declared in (int, float):
        return Annotated[declared, Strict()]
    if get_origin(declared) is tuple:
        return tuple[_schema_type(get_args(declared)[0]), ...]  # type: ignore[misc]
    if get_origin(declared) in (Union, UnionType):
        return Union[tuple(_schema_type(part) for part in get_args(declared))]  # noqa: UP007
    return declared


class Ring(BaseModel):
    """Views evenly around the object at one elevation, the first at azimuth 0."""

    model_config = _CLOSED
    count: Annotated[int, Strict()] = Field(ge=1, description="number of views")
    elevation_deg: Annotated[float, Strict()] = Field(default=20.0, ge=-90, le=90, description="degrees")


def _ring_or_list(listed: Any) -> Any:
    """Told apart by form, so that an error speaks of what was meant; tags in parentheses are no part of its place."""
    tagged = Annotated[Ring, Tag("(ring)")] | Annotated[listed, Tag("(list)")]
    return Annotated[tagged, Discriminator(lambda value: "(ring)" if isinstance(value, dict | Ring) else "(list)")]


def reconstruction_schema() -> type[BaseModel]:
    """Everything in the form beside the files."""
    views = next(spec for spec in dataclasses.fields(ReconstructionConfig) if spec.name == "views")
    return model_of(
        ReconstructionConfig,
        views=(_ring_or_list(_schema_type(views.type)), _field(views)),
        model=(
            Annotated[str, StringConstraints(max_length=200)],
            Field("default", description="name, name@version, or job:{id} of a training that succeeded"),
        ),
        metadata=(Metadata, Field(default_factory=dict)),
        webhook_url=(WebhookUrl, None),
        expires_after_s=(ExpiresAfter, None),
    )


ReconstructionForm = reconstruction_schema()
MethodConfigs = {method: model_of(config) for method, config in METHODS.items()}
SyntheticDataset = model_of(SyntheticData, type=(Literal["synthetic"], "synthetic"))


class UploadedDataset(BaseModel):
    """A data set of one's own, that was uploaded and found good."""

    model_config = _CLOSED
    type: Literal["uploaded"]
    id: str = Field(max_length=200, description="of POST /v1/datasets")


def _dataset_kind(value: Any) -> str:
    kind = value.get("type", "synthetic") if isinstance(value, dict) else getattr(value, "type", "synthetic")
    return f"({kind})"


AnyDataset = Annotated[
    Annotated[SyntheticDataset, Tag("(synthetic)")]  # type: ignore[valid-type]
    | Annotated[UploadedDataset, Tag("(uploaded)")],
    Discriminator(
        _dataset_kind,
        custom_error_type="dataset_type",
        custom_error_message="type must be synthetic or uploaded",
    ),
]
SdfSrnSettings = MethodConfigs["sdf_srn"]


class CheckpointSource(BaseModel):
    """Where the weights to start from come from: a training that succeeded, or a model by name."""

    model_config = _CLOSED
    job: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _one(self) -> "CheckpointSource":
        if (self.job is None) == (self.model is None):
            raise ValueError("give either job or model")
        return self


class TrainingRequest(BaseModel):
    """A training; `{}` is the published recipe."""

    model_config = _CLOSED
    method: Literal["sdf_srn"] = Field(default="sdf_srn", description="what is trained")
    dataset: AnyDataset = Field(default_factory=SyntheticDataset)
    config: SdfSrnSettings = Field(default_factory=SdfSrnSettings)  # type: ignore[valid-type]
    from_checkpoint: CheckpointSource | None = Field(default=None, description="weights to start from")
    publish_as: ModelNameText | None = Field(default=None, description="the name under which the trained model is served")
    metadata: Metadata = Field(default_factory=dict)
    webhook_url: WebhookUrl = None
    expires_after_s: ExpiresAfter = None


class Progress(BaseModel):
    """How far a job is in its present phase."""

    phase: str
    step: int
    total: int
    fraction: float
    eta_s: float | None


class QueuePlace(BaseModel):
    """Where a waiting job stands; position 0 is next."""

    name: str
    position: int


class ModelName(BaseModel):
    """The model that a job uses."""

    name: str
    version: int


class JobLinks(BaseModel):
    """Where to go from here."""

    self: str
    cancel: str
    events: str
    artifacts: str
    archive: str


_STATUS = f"{', '.join(get_args(Status))}, or another one of a newer version of the service"
_TYPE = f"{', '.join(TYPES)}, or another one of a newer version of the service"


class JobEnvelope(BaseModel):
    """The one envelope for everything that takes time."""

    id: str
    type: str = Field(description=_TYPE)
    status: str = Field(description=_STATUS)
    progress: Progress
    queue: QueuePlace | None
    attempt: int
    params: dict[str, Any]
    model: ModelName | None
    published: ModelName | None
    input_digest: str | None
    metrics: dict[str, Any]
    error: dict[str, Any] | None
    metadata: dict[str, Any]
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None
    provenance: dict[str, Any]
    links: JobLinks

    @classmethod
    def of(cls, job: Job) -> "JobEnvelope":
        """The envelope of a job's record."""
        here = f"/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            type=job.type,
            status=job.status,
            progress=_progress(job),
            queue=QueuePlace(name=job.queue, position=job.position) if job.position is not None else None,
            attempt=max(1, job.attempt),
            params=resolved_params(job),
            model=ModelName(**job.model) if job.model else None,
            published=ModelName(**job.published) if job.published else None,
            input_digest=job.input_digest,
            metrics=job.metrics,
            error=job.error,
            metadata=job.metadata,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            expires_at=job.expires_at,
            provenance=job.provenance,
            links=JobLinks(
                self=here,
                cancel=f"{here}/cancel",
                events=f"{here}/events",
                artifacts=f"{here}/artifacts",
                archive=f"{here}/archive",
            ),
        )


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[JobEnvelope]
    next_cursor: str | None


class JobEvent(BaseModel):
    """Something that happened to a job; `id` is what Last-Event-ID names."""

    id: str
    event: str = Field(description="status, progress, metric, log, end or gap; a newer version of the service may have more")
    data: dict[str, Any]


class ViewAngles(BaseModel):
    """The direction that a file shows."""

    azimuth_deg: float
    elevation_deg: float


class Artifact(BaseModel):
    """One file that a job made."""

    name: str
    kind: str
    media_type: str
    bytes: int
    sha256: str
    href: str
    view: ViewAngles | None


class DatasetOptions(BaseModel):
    """What may be said beside the zip, as query parameters."""

    model_config = _CLOSED
    name: str | None = Field(default=None, min_length=1, max_length=200, description="what people call it")
    skip_bad: bool = Field(default=False, description="leave out and name what cannot be used; fail only if nothing is left")
    recentre: bool = Field(default=False, description="move an object that lies beside the origin of its cameras' world there")
    metadata: str | None = Field(
        default=None,
        max_length=2_000,  # an address has no room for more
        description="a JSON object of the caller's own names and values",
    )
    webhook_url: WebhookUrl = None


class DatasetLinks(BaseModel):
    """Where to see a data set, and the job that checked it."""

    self: str
    job: str
    contact_sheet: str | None


class DatasetCard(BaseModel):
    """A data set of one's own; what is counted is known once its job has succeeded."""

    id: str
    name: str | None
    status: str = Field(description=_STATUS)
    objects: int | None
    pictures: int | None
    digest: str | None
    bytes: int | None
    report: dict[str, Any]
    error: dict[str, Any] | None
    metadata: dict[str, Any]
    created_at: str
    links: DatasetLinks

    @classmethod
    def of(cls, job: Job) -> "DatasetCard":
        """What a data set's job found."""
        sizes = {file["name"]: int(file["bytes"]) for file in job.files}
        sheet = f"/v1/jobs/{job.id}/artifacts/{CONTACT_SHEET}" if CONTACT_SHEET in sizes else None
        return cls(
            id=job.id,
            name=job.params.get("name"),
            status=job.status,
            objects=job.metrics.get("objects"),
            pictures=job.metrics.get("pictures"),
            digest=job.metrics.get("digest"),
            bytes=sizes.get(VIEWS_FILE),
            report=job.metrics,
            error=job.error,
            metadata=job.metadata,
            created_at=job.created_at,
            links=DatasetLinks(self=f"/v1/datasets/{job.id}", job=f"/v1/jobs/{job.id}", contact_sheet=sheet),
        )


class DatasetPage(BaseModel):
    """Data sets, newest first."""

    items: list[DatasetCard]
    next_cursor: str | None


class ModelCard(BaseModel):
    """A model that is served by name: its latest version, and which others there are."""

    name: str
    version: int
    digest: str
    bytes: int
    evaluation: dict[str, Any]
    versions: list[int]
    aliases: dict[str, int]
    shared: bool


class ModelPage(BaseModel):
    """Models, by name."""

    items: list[ModelCard]
    next_cursor: str | None


class ModelVersion(BaseModel):
    """One version of a model; `job` is the training that it came from."""

    name: str
    version: int
    digest: str
    bytes: int
    evaluation: dict[str, Any]
    networks: dict[str, Any]
    job: str | None
    created_at: str | None


class VersionSource(BaseModel):
    """Where a version comes from: a training that succeeded."""

    model_config = _CLOSED
    job: str = Field(max_length=200)


class AliasTarget(BaseModel):
    """The version that an alias means."""

    model_config = _CLOSED
    version: Annotated[int, Strict()] = Field(ge=1, le=10**9)


class ProblemDocument(BaseModel):
    """RFC 9457; `errors` has the place of each bad field."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


def _progress(job: Job) -> Progress:
    if job.status == "succeeded":
        total = int(job.progress.get("total", 1))
        return Progress(phase="done", step=total, total=total, fraction=1.0, eta_s=0.0)
    if not job.progress:
        phase = {"queued": "waiting", "running": "starting"}.get(job.status, job.status)
        return Progress(phase=phase, step=0, total=0, fraction=0.0, eta_s=None)
    return Progress(**job.progress)
