"""A data set: the views, which object each shows, and the truth where it is known."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import Progress, families_of, make_views
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.tensor_files import read_tensors

FORMAT = "sdfsrn-views-1"
CENTRED = {"sphere", "box", "ellipsoid"}  # of the other families the bounds are, not the mass


@dataclass(frozen=True)
class Dataset:
    """The pictures of one object are neighbours: `first[i]` is the first of object i, `names[i]` its family or folder.

    `shapes` are the true ones of a synthetic data set; `description` is what a checkpoint says of what it was trained on.
    """

    views: TrainingViews
    first: tuple[int, ...]
    names: tuple[str, ...]
    shapes: Primitives | None
    description: dict[str, Any]

    def __len__(self) -> int:
        return len(self.first)

    def part(self, count: int) -> "Dataset":
        """The first `count` objects, or all if there are fewer."""
        end = self.first[count] if count < len(self) else len(self.views)
        shapes = self.shapes[:count] if self.shapes is not None else None
        return Dataset(self.views[:end], self.first[:count], self.names[:count], shapes, self.description)

    @property
    def is_centred(self) -> bool:
        """Whether every object's centre of mass is known to lie at the origin."""
        return self.shapes is not None and set(self.names) <= CENTRED

    @property
    def first_views(self) -> TrainingViews:
        """One view of each object."""
        return self.views[torch.tensor(self.first)]


def open_dataset(data: SyntheticData | Path, progress: Progress = lambda done, total: None) -> Dataset:
    """Draw a synthetic data set, or read the file of one's own. Raises ValueError for a file that is none."""
    return _read(data) if isinstance(data, Path) else synthetic_dataset(data, progress)


def synthetic_dataset(data: SyntheticData, progress: Progress = lambda done, total: None) -> Dataset:
    """Draw it; `progress` hears how many pictures of how many there are."""
    shapes, views = make_views(data, progress)
    first = tuple(range(0, len(views), data.views_per_shape))
    return Dataset(views, first, tuple(families_of(data)), shapes, dataclasses.asdict(data))


def save_dataset(views: TrainingViews, subjects: list[str], path: Path) -> None:
    """Write the file of one's own data set; `subjects[i]` is what picture i shows, and its pictures are neighbours."""
    facts = {"camera_distance": views.camera_distance, "fovy_deg": views.fovy_deg, "subjects": subjects}
    tensors = {
        "images": views.images,
        "masks": views.masks.to(torch.uint8),
        "c2w": views.c2w,
        "azimuth_deg": views.azimuth_deg,
        "elevation_deg": views.elevation_deg,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": FORMAT, "facts": json.dumps(facts)})


def _read(path: Path) -> Dataset:
    metadata, tensors = read_tensors(path, FORMAT)
    facts = json.loads(metadata["facts"])
    views = TrainingViews(
        **{**tensors, "masks": tensors["masks"].bool()}, camera_distance=facts["camera_distance"], fovy_deg=facts["fovy_deg"]
    )
    subjects: list[str] = facts["subjects"]
    first = tuple(i for i, subject in enumerate(subjects) if i == 0 or subject != subjects[i - 1])
    description = {"type": "uploaded", "objects": len(first), "pictures": len(views)}
    return Dataset(views, first, tuple(subjects[i] for i in first), None, description)
