"""The OpenAPI document: FastAPI's, with what holds for every route said once.

Every error is a problem document; any request may lack a key, come from a strange host, or find the broker or the store away.
"""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.schemas import JobEvent, ProblemDocument, ReconstructionForm

_REF = "#/components/schemas/{model}"
_EVERYWHERE = (400, 401, 403, 503)
_OPEN = ("/healthz", "/readyz")
_JOB = {"job_id": "$response.body#/id"}
_DATASET = {"dataset_id": "$response.body#/id"}
_MODEL = {"name": "$response.body#/name"}
_VERSION = _MODEL | {"number": "$response.body#/version"}
# the schema of an answer -> the operations that it leads to, and what of it fills their parameters
_LEADS_TO: dict[str, dict[str, dict[str, str]]] = {
    "JobEnvelope": dict.fromkeys(
        ("get_job", "job_events", "list_artifacts", "get_archive", "cancel_job", "pause_job", "resume_job", "delete_job"), _JOB
    ),
    "DatasetCard": dict.fromkeys(("get_dataset", "delete_dataset"), _DATASET),
    "ModelCard": dict.fromkeys(("get_model", "put_alias", "delete_model"), _MODEL),
    "ModelVersion": dict.fromkeys(("get_version", "delete_version"), _VERSION) | {"get_model": _MODEL},
}


def install(app: FastAPI) -> None:
    """Let the application describe itself so."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    schemas = components["schemas"]
    # of the forms and answers that are read and written by hand
    schemas |= ReconstructionForm.model_json_schema(ref_template=_REF).get("$defs", {})
    schemas["JobEvent"] = JobEvent.model_json_schema(ref_template=_REF)
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema(ref_template=_REF)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "where the service has keys"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(operation, is_open=path in _OPEN)
    return document


def _complete_operation(operation: dict[str, Any], *, is_open: bool) -> None:
    responses = operation["responses"]
    for status in _EVERYWHERE:
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    for status, response in responses.items():
        if int(status) < 300:
            _link(response)
        if int(status) >= 400 and not is_open:
            response["content"] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    if not is_open:
        operation["security"] = [{}, {"key": []}]


def _link(response: dict[str, Any]) -> None:
    """Say where an answer leads (OpenAPI 3.1, 4.8.20)."""
    answer = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    links = {
        operation: {"operationId": operation, "parameters": parameters}
        for operation, parameters in _LEADS_TO.get(answer, {}).items()
    }
    if links:
        response["links"] = links
