"""What the broker keeps of a model's version, and where its file lies: shared by those who publish and those who serve."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EVERYBODY = ""
# what a data set's job leaves
VIEWS_FILE, CONTACT_SHEET = "views.safetensors", "contact_sheet.png"


@dataclass(frozen=True)
class Card:
    """One version of a model. `source` is where its file lies: a `file` of the weights folder or a `key` of the store."""

    digest: str
    bytes: int
    networks: dict[str, Any]
    source: dict[str, Any]
    created_at: str | None = None
    job: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> str:
        """As the broker keeps it."""
        return json.dumps(asdict(self))


def model_key(owner: str, name: str, source: str, fence: int | None = None) -> str:
    """Where the file of a version lies: under the job and the fence that published it, or an id of its own; no two share one."""
    stem = source if fence is None else f"{source}.{fence}"
    return f"models/{owner or 'everybody'}/{name}/{stem}.safetensors"


def model_source(key: str) -> str:
    """The `source` of a `model_key`."""
    return Path(key).name.partition(".")[0]


def first_version(weights: Path, owner: str, name: str) -> int:
    """1, or 2 where the weights folder has version 1."""
    return 2 if owner == EVERYBODY and (weights / f"{name}.safetensors").is_file() else 1
