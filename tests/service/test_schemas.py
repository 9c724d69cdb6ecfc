"""Request schemas and the library's dataclasses cannot drift apart: each limit of one is a limit of the other."""

import dataclasses
import json
import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from sdfsrn.config import METHODS, ReconstructionConfig, SyntheticData
from service.app import create_app
from service.jobs import Job, new_id, now
from service.schemas import DatasetCard, JobEnvelope, MethodConfigs, ReconstructionForm, SyntheticDataset
from service.settings import Settings

PAIRS: list[tuple[type, type[BaseModel]]] = [
    *((METHODS[method], MethodConfigs[method]) for method in METHODS),
    (SyntheticData, SyntheticDataset),
    (ReconstructionConfig, ReconstructionForm),
]


def bounded() -> list[Any]:
    return [
        pytest.param(config, schema, spec, id=f"{config.__name__}.{spec.name}")
        for config, schema in PAIRS
        for spec in dataclasses.fields(config)
        if spec.metadata.get("low") is not None
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("views", [{"count": 3}, [{"azimuth_deg": 30, "elevation_deg": 20}]])
def test_what_was_asked_is_written_as_it_was_asked(views: Any) -> None:
    assert ReconstructionForm.model_validate({"views": views}).model_dump(mode="json", exclude_unset=True) == {"views": views}


@pytest.mark.parametrize(("config", "schema"), PAIRS)
def test_every_field_is_there_with_default_and_meaning(config: type, schema: type[BaseModel]) -> None:
    for spec in dataclasses.fields(config):
        field = schema.model_fields[spec.name]
        assert field.description == spec.metadata["description"]
        if spec.name != "views":
            assert field.default == spec.default


@pytest.mark.parametrize(("config", "schema", "spec"), bounded())
def test_both_refuse_what_lies_beyond_a_limit(config: type, schema: type[BaseModel], spec: "dataclasses.Field[Any]") -> None:
    low, high = spec.metadata["low"], spec.metadata["high"]
    step = 1 if "int" in str(spec.type) else 1e-6 * max(1.0, abs(high))
    for inside in (low, high):
        schema.model_validate({spec.name: inside})
    for outside in (low - step, high + step):
        with pytest.raises(ValidationError):
            schema.model_validate({spec.name: outside})
        with pytest.raises(ValueError, match=spec.name):
            config(**{spec.name: outside})


def test_a_number_is_not_taken_from_a_text_or_a_truth_value() -> None:
    for wrong in ("300", True, None):
        with pytest.raises(ValidationError):
            MethodConfigs["sdf_srn"].model_validate({"epochs": wrong})


def test_the_description_is_whole_and_errors_are_problems() -> None:
    document = create_app(Settings()).openapi()
    text = json.dumps(document)
    named = set(re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", text))
    assert named <= set(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path not in ("/healthz", "/readyz"):
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_a_job_of_a_newer_version_is_shown_with_its_status() -> None:
    job = Job(new_id(), "dataset", "dataset", now(), status="checking")  # type: ignore[arg-type]
    assert JobEnvelope.of(job).status == DatasetCard.of(job).status == "checking"
