"""What a job's parameters come to: what its client said, over the defaults of the process that asks.

A record holds what was said and no more. Defaults are filled in where a job runs and where it is shown, so a version of the
service that has another default, or a setting more, can still run what another version took in.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sdfsrn.config import METHODS, ReconstructionConfig, SyntheticData
from service.jobs import SCHEMA, Job

METHOD = "sdf_srn"  # unless something else is said
_TRAINING: dict[str, Any] = {"method": METHOD, "dataset": {}, "config": {}, "from_checkpoint": None, "publish_as": None}


def resolved_params(job: Job) -> dict[str, Any]:
    """All parameters of a job; only what was said where this version does not know the type, the method or the schema.

    Of a job that expired there are none.
    """
    if job.schema > SCHEMA or (job.expired and not job.params):
        return job.params
    if job.type == "reconstruction":
        return _defaults(ReconstructionConfig) | job.params
    if job.type == "training":
        return _training(job.params)
    return job.params


def _training(said: Mapping[str, Any]) -> dict[str, Any]:
    params = _TRAINING | dict(said)
    known = METHODS.get(params["method"])
    config = _defaults(known) if known else {}
    dataset = {"type": "synthetic"} | params["dataset"]
    drawn = _defaults(SyntheticData) if dataset["type"] == "synthetic" else {}
    start = {"job": None, "model": None} | params["from_checkpoint"] if params["from_checkpoint"] else None
    return params | {"dataset": drawn | dataset, "config": config | params["config"], "from_checkpoint": start}


def _defaults(config: type) -> dict[str, Any]:
    """The values of a configuration of which nothing was said, as JSON has them."""
    values = dataclasses.asdict(config())
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
