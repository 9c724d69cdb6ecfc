"""What the tests and benchmarks send: pictures of a data set as those of a stranger."""

import torch

from sdfsrn.config import SyntheticData, View
from sdfsrn.data.synthetic import make_scenes
from sdfsrn.images import Picture


def pictures_of(data: SyntheticData, size: int = 64) -> list[Picture]:
    """What the cameras of a synthetic data set see, with masks."""
    scenes = make_scenes(data)
    return scenes.photographs(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(scenes), -1), size)


def views_of(data: SyntheticData) -> list[View]:
    """Where these were taken from."""
    scenes = make_scenes(data)
    angles = zip(scenes.azimuth_deg.tolist(), scenes.elevation_deg.tolist(), strict=True)
    return [View(*pair) for pair in angles]
