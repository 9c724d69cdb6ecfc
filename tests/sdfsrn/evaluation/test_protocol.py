"""The evaluation of a model whose fields are known in closed form: what it must report can be worked out by hand."""

import dataclasses
import math

import torch
from torch import Tensor

from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.evaluation.protocol import ELEVATIONS_DEG, OFFSETS_DEG, evaluate_model
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.rendering import Sdf

RADII = (0.5, 0.4, -0.2)  # the last field is positive everywhere
TRUE_RADIUS = 0.5


class Balls(Model):
    """Fields that are exact balls, one per picture in the order they are encoded: the first latent dimension is the radius."""

    def encode(self, images: Tensor) -> Tensor:
        """The radii as they come."""
        return torch.tensor(RADII)[:, None].expand(len(images), 2)

    def sdf(self, latent: Tensor) -> Sdf:
        """Distance to a ball."""
        return lambda points: points.norm(dim=-1) - latent[:, :1]


def _model_and_data() -> tuple[Model, Dataset]:
    data = synthetic_dataset(SyntheticData(n_shapes=3, families=("sphere",), seed=1))
    model = Balls(ModelConfig(latent_dim=2, hidden_dim=16)).eval()
    shapes = Primitives(torch.full((3, 3), TRUE_RADIUS), torch.zeros(3, dtype=torch.long))
    return model, dataclasses.replace(data, shapes=shapes, names=("sphere", "box", "box"))


def test_report_is_what_geometry_says() -> None:
    model, data = _model_and_data()
    seen: list[tuple[int, int]] = []
    evaluation = evaluate_model(model, data, 0.01, lambda done, total: seen.append((done, total)))
    report, novel = evaluation.report, evaluation.report["novel_view_iou"]
    assert list(dict.fromkeys(seen)) == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert report["n_shapes"] == 3 and report["n_failures"] == 1 and report["temperature"] == 0.01
    # a ball of radius r at distance d covers a disc of radius r / sqrt(d^2 - r^2)
    disc = lambda r: r * r / (2.5**2 - r * r)  # noqa: E731
    smaller = disc(0.4) / disc(0.5)
    assert novel["sphere"] > 0.995
    assert abs(novel["box"] - smaller / 2) < 0.01, "the failure counts as 0"
    assert abs(novel["mean"] - (1 + smaller) / 3) < 0.01 and novel["worst"] == 0
    assert novel["without_spheres"] == novel["box"]
    assert list(novel["by_offset"]) == ["30", "90", "150", "210", "270", "330"]
    assert abs(report["iou_3d"] - (1 + 0.8**3) / 3) < 0.01
    assert abs(report["chamfer_l1"] - (0 + 0.1) / 2) < 0.001, "the failure does not count"
    assert 0 <= report["chamfer_l1_floor"] < 1e-4
    assert abs(report["surface_gradient_norm"] - 1) < 1e-3
    assert evaluation.novel_truth is not None
    assert evaluation.novel_truth.shape == evaluation.novel_prediction.shape == (3, 6, 64, 64)
    assert not evaluation.novel_prediction[2].any()


def test_without_a_known_truth_the_rest_is_reported() -> None:
    model, data = _model_and_data()
    evaluation = evaluate_model(model, dataclasses.replace(data, shapes=None), 0.01)
    assert evaluation.novel_truth is None and evaluation.novel_prediction.shape == (3, 6, 64, 64)
    report = evaluation.report
    assert (report["novel_view_iou"], report["iou_3d"], report["chamfer_l1"]) == (None, None, None)
    assert report["chamfer_l1_floor"] is None
    assert report["n_failures"] == 1 and abs(report["surface_gradient_norm"] - 1) < 1e-3 and report["wrong_pixels"] > 0


def test_the_six_angles_are_the_contracts() -> None:
    assert [30 + 60 * i for i in range(6)] == list(OFFSETS_DEG)
    assert ELEVATIONS_DEG == (-10, 10, 25, 40, 0, 20)


def test_silhouette_loss_and_wrong_pixels_are_those_of_the_exact_pictures() -> None:
    """The same numbers from the distance between ray and centre, which no renderer is needed for."""
    model, data = _model_and_data()
    views = data.views
    report = evaluate_model(model, data, 0.02).report
    rays_o, rays_d = pixel_rays(views.c2w, views.fovy_deg, 64)
    away = torch.linalg.cross(rays_o, rays_d).norm(dim=-1)
    minima = torch.where(away < 1, away - torch.tensor(RADII)[:, None], 1.0)
    truth = views.masks.flatten(1)
    loss = ((-minima / 0.02).sigmoid() - truth.float()).square().mean()
    assert math.isclose(report["silhouette_loss"], float(loss), rel_tol=0.02)
    assert math.isclose(report["wrong_pixels"], float(((minima < 0) != truth).float().mean()), rel_tol=0.02)
