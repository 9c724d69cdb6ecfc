"""A data set: the views, which object each shows, and the truth where it is known."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from safetensors.torch import save_file
from torch import Tensor

from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import Progress, families_of, make_views
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.images import Picture, tile_of
from sdfsrn.tensor_files import read_tensors

FORMAT = "sdfsrn-views-1"
CENTRED = {"sphere", "box", "ellipsoid"}  # of the other families the bounds are, not the mass


@dataclass(frozen=True)
class Dataset:
    """The pictures of one object are neighbours: `first[i]` is the first of object i, `names[i]` its family or folder.

    Every picture has a world of its own scale (`TrainingViews.scales`), in which its mask has `mask_radius`.
    `digest` is that of the views as they were drawn or uploaded. `shapes` are the true ones of a synthetic data set;
    `description` is what a checkpoint says of what it was trained on.
    """

    views: TrainingViews
    first: tuple[int, ...]
    names: tuple[str, ...]
    shapes: Primitives | None
    description: dict[str, Any]
    mask_radius: float
    digest: str

    def __len__(self) -> int:
        return len(self.first)

    def part(self, count: int) -> "Dataset":
        """The first `count` objects, or all if there are fewer."""
        end = self.first[count] if count < len(self) else len(self.views)
        shapes = self.shapes[:count] if self.shapes is not None else None
        return dataclasses.replace(self, views=self.views[:end], first=self.first[:count], names=self.names[:count], shapes=shapes)

    @property
    def is_centred(self) -> bool:
        """Whether every object's centre of mass is known to lie at the origin."""
        return self.shapes is not None and set(self.names) <= CENTRED

    @property
    def object_of(self) -> Int64[Tensor, " n"]:
        """The place of the object that each picture shows."""
        counts = torch.tensor([*self.first, len(self.views)]).diff()
        return torch.arange(len(self)).repeat_interleave(counts)

    @property
    def first_views(self) -> TrainingViews:
        """One view of each object."""
        return self.views[torch.tensor(self.first)]


def open_dataset(data: SyntheticData | Path, progress: Progress = lambda done, total: None) -> Dataset:
    """Draw a synthetic data set, or read the file of one's own. Raises ValueError for a file that is none."""
    return _read(data) if isinstance(data, Path) else synthetic_dataset(data, progress=progress)


def synthetic_dataset(
    data: SyntheticData, mask_radius: float | None = None, progress: Progress = lambda done, total: None
) -> Dataset:
    """Draw it. Its masks have `mask_radius` in their worlds, by default the mean of their radii.

    `progress` hears how many pictures of how many there are.
    """
    shapes, views = make_views(data, progress)
    radius = mask_radius or views.mean_mask_radius()
    scales = views.scales(radius)
    first = tuple(range(0, len(views), data.views_per_shape))
    shapes = Primitives(shapes.half_extents * scales[list(first), None], shapes.kind)
    return Dataset(
        views.scaled(scales), first, tuple(families_of(data)), shapes, dataclasses.asdict(data), radius, views.digest(first)
    )


def save_dataset(views: TrainingViews, subjects: list[str], path: Path) -> None:
    """Write the file of one's own data set; `subjects[i]` is what picture i shows, and its pictures are neighbours."""
    facts = {"camera_distance": views.camera_distance, "fovy_deg": views.fovy_deg, "subjects": subjects}
    tensors = {
        "tiles": views.tiles,
        "masks": views.masks.to(torch.uint8),
        "c2w": views.c2w,
        "azimuth_deg": views.azimuth_deg,
        "elevation_deg": views.elevation_deg,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": FORMAT, "facts": json.dumps(facts)})


def first_of_each(subjects: Sequence[str]) -> tuple[int, ...]:
    """The places of the first picture of each object; pictures of one object are neighbours."""
    return tuple(i for i, subject in enumerate(subjects) if i == 0 or subject != subjects[i - 1])


def _read(path: Path) -> Dataset:
    metadata, tensors = read_tensors(path, FORMAT)
    facts = json.loads(metadata["facts"])
    tensors["masks"] = tensors["masks"].bool()
    if "images" in tensors:  # of a service before tiles were kept
        tensors["tiles"] = _tiles(tensors.pop("images"), tensors["masks"])
    views = TrainingViews(
        **tensors, scale=torch.ones(len(tensors["masks"])), camera_distance=facts["camera_distance"], fovy_deg=facts["fovy_deg"]
    )
    subjects: list[str] = facts["subjects"]
    first = first_of_each(subjects)
    description = {"type": "uploaded", "objects": len(first), "pictures": len(views)}
    radius = views.mean_mask_radius()
    names = tuple(subjects[i] for i in first)
    return Dataset(views.scaled(views.scales(radius)), first, names, None, description, radius, views.digest(first))


def _tiles(images: Tensor, masks: Tensor) -> Tensor:
    pictures = (Picture(rgb.permute(1, 2, 0).numpy(), mask.numpy()) for rgb, mask in zip(images, masks, strict=True))
    return torch.stack([torch.from_numpy(tile_of(picture).copy()).permute(2, 0, 1) for picture in pictures])
