"""The refinement's derivatives against finite differences, and what it does with views and with masks it cannot explain."""

import math

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import WEIGHTS, SyntheticData, View
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.images import Picture
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.refinement import TURN, Refinement

ELEVATIONS = (-10.0, 40.0)


@pytest.fixture(scope="module")
def served() -> Reconstructor:
    """The default model."""
    return Reconstructor(Checkpoint.load(WEIGHTS / "default.safetensors"), torch.device("cpu"))


@pytest.fixture(scope="module")
def box() -> tuple[Picture, View]:
    """A box's picture, and where it was taken from."""
    views = synthetic_dataset(SyntheticData(n_shapes=1, seed=77, families=("box",))).views
    picture = Picture(views.images[0].permute(1, 2, 0).numpy(), views.masks[0].numpy())
    return picture, View(float(views.azimuth_deg[0]), float(views.elevation_deg[0]))


@pytest.fixture
def refinement(served: Reconstructor, box: tuple[Picture, View]) -> Refinement:
    """Of the box's mask."""
    checkpoint = served.checkpoint
    mask = torch.from_numpy(box[0].mask)
    return Refinement(served.model, mask, checkpoint.camera_distance, checkpoint.fovy_deg, torch.Generator().manual_seed(0))


def test_derivatives_are_those_of_finite_differences(
    served: Reconstructor, box: tuple[Picture, View], refinement: Refinement
) -> None:
    latent, view = served.encode(box[0]), View(box[1].azimuth_deg + 10, box[1].elevation_deg + 5)
    residuals, derivatives = refinement._residuals(latent, view, 130)
    direction = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(1)))
    step, turn_deg = 1e-3, 0.05
    turn = math.radians(turn_deg) / TURN

    def difference(latent_step: torch.Tensor, azimuth_deg: float, elevation_deg: float) -> torch.Tensor:
        plus, minus = (
            refinement._residuals(
                latent + way * latent_step,
                View(view.azimuth_deg + way * azimuth_deg, view.elevation_deg + way * elevation_deg),
                130,
            )[0]
            for way in (1, -1)
        )
        return (plus - minus) / 2

    still = torch.zeros_like(latent)
    pairs = [
        (derivatives[:, :128] @ direction[0], difference(step * direction, 0, 0) / step),
        (derivatives[:, 128], difference(still, turn_deg, 0) / turn),
        (derivatives[:, 129], difference(still, 0, turn_deg) / turn),
    ]
    short = residuals > 5e-3  # on both sides of the difference too
    assert int(short.sum()) > 20
    for derivative, expected in pairs:
        # the median: a ray whose lowest sample changes between the two has a jump in its difference
        error = (derivative - expected)[short].abs().median() / expected[short].abs().median()
        assert float(error) < 0.05


def test_view_is_turned_back(served: Reconstructor, box: tuple[Picture, View], refinement: Refinement) -> None:
    picture, true = box
    latent = served.encode(picture)
    for azimuth, elevation in ((12, 0), (-12, 0), (0, 8)):
        wrong = View((true.azimuth_deg + azimuth) % 360, true.elevation_deg + elevation)
        _, found = refinement.run(latent, wrong, 30, ELEVATIONS)
        assert abs((found.azimuth_deg - true.azimuth_deg + 180) % 360 - 180) < 6
        assert abs(found.elevation_deg - true.elevation_deg) < 6


def test_known_view_stays_and_elevations_hold(served: Reconstructor, box: tuple[Picture, View], refinement: Refinement) -> None:
    latent, true = served.encode(box[0]), box[1]
    moved, view = refinement.run(latent, true, 5, None)
    assert view == true and not torch.equal(moved, latent)
    narrow = (true.elevation_deg + 9, true.elevation_deg + 10)
    _, view = refinement.run(latent, View(true.azimuth_deg, true.elevation_deg + 9.5), 10, narrow)
    assert narrow[0] <= view.elevation_deg <= narrow[1]
