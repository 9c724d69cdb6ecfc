"""The refinement's derivatives against finite differences, and what becomes of views."""

import math

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import WEIGHTS, ReconstructionConfig, SyntheticData, View
from sdfsrn.images import Picture
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.refinement import TURN, Refinement, _turned
from tests.sdfsrn.given import pictures_of, views_of

METRIC = torch.eye(128)


@pytest.fixture(scope="module")
def served() -> Reconstructor:
    """The default model."""
    return Reconstructor(Checkpoint.load(WEIGHTS / "default.safetensors"), torch.device("cpu"))


@pytest.fixture(scope="module")
def box() -> tuple[Picture, View]:
    """A box's picture, and where it was taken from."""
    data = SyntheticData(n_shapes=1, seed=77, families=("box",))
    return pictures_of(data)[0], views_of(data)[0]


@pytest.fixture
def refinement(served: Reconstructor, box: tuple[Picture, View]) -> Refinement:
    """Of the box's mask."""
    checkpoint = served.checkpoint
    mask = served.look(box[0]).target > 0.5
    return Refinement(served.model, mask, checkpoint.camera_distance, checkpoint.fovy_deg, 0.25, torch.Generator().manual_seed(0))


def test_derivatives_are_those_of_finite_differences(
    served: Reconstructor, box: tuple[Picture, View], refinement: Refinement
) -> None:
    latent, view = served.look(box[0]).latent, View(box[1].azimuth_deg + 10, box[1].elevation_deg + 5)
    residuals, derivatives = refinement.residuals(latent, view)
    direction = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(1)))
    step, turn_deg = 1e-3, 0.05
    turn = math.radians(turn_deg) / TURN

    def difference(latent_step: torch.Tensor, azimuth_deg: float, elevation_deg: float) -> torch.Tensor:
        plus, minus = (
            refinement.residuals(
                latent + way * latent_step,
                View(view.azimuth_deg + way * azimuth_deg, view.elevation_deg + way * elevation_deg),
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
        # most of them: a ray whose lowest sample changes between the two has a jump in its difference
        error = (derivative - expected)[short].abs().quantile(0.9) / expected[short].abs().median()
        assert float(error) < 0.1


@pytest.mark.slow
def test_views_are_turned_back(served: Reconstructor) -> None:
    """Of several boxes on average: the latent may explain a mask from a wrong view too, and then the view stays."""
    data, checkpoint = SyntheticData(n_shapes=6, seed=77, families=("box",)), served.checkpoint
    left = []
    for picture, true in zip(pictures_of(data), views_of(data), strict=True):
        looked = served.look(picture)
        refinement = Refinement(
            served.model,
            looked.target > 0.5,
            checkpoint.camera_distance,
            checkpoint.fovy_deg,
            0.25,
            torch.Generator().manual_seed(0),
        )
        for azimuth, elevation in ((12, 0), (-12, 0), (0, 8)):
            wrong = View((true.azimuth_deg + azimuth) % 360, true.elevation_deg + elevation)
            _, view = refinement.run(looked.latent, wrong, 30, (-10, 40), METRIC)
            away = abs((view.azimuth_deg - true.azimuth_deg + 180) % 360 - 180), abs(view.elevation_deg - true.elevation_deg)
            left.append(math.hypot(*away) / math.hypot(azimuth, elevation))
    assert sorted(left)[len(left) // 2] < 0.6 and sum(left) / len(left) < 0.7, left


@pytest.mark.slow
def test_what_is_refined_explains_no_less(
    served: Reconstructor, box: tuple[Picture, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdfsrn.reconstruct.SETTLED_IOU", 1.0)  # whatever is explained already
    picture, true = box
    looked, config = served.look(picture), ReconstructionConfig(refine_steps=30)
    for azimuth, elevation in ((12, 0), (-12, 0), (0, 8)):
        start = served.shape(looked, View((true.azimuth_deg + azimuth) % 360, true.elevation_deg + elevation))
        assert served.refined(start, looked, config).input_iou >= start.input_iou


def test_known_view_stays(served: Reconstructor, box: tuple[Picture, View], refinement: Refinement) -> None:
    latent, true = served.look(box[0]).latent, box[1]
    moved, view = refinement.run(latent, true, 5, None, METRIC)
    assert view == true and not torch.equal(moved, latent)


@pytest.mark.slow
def test_at_the_end_of_the_elevations_the_latent_goes_on(
    served: Reconstructor, box: tuple[Picture, View], refinement: Refinement
) -> None:
    """The best elevation lies beyond the bound: what is left is as well explained as if the view there were known."""
    latent, true = served.look(box[0]).latent, box[1]
    low = true.elevation_deg + 9
    bounded, view = refinement.run(latent, View(true.azimuth_deg, low + 0.5), 30, (low, low + 1), METRIC)
    assert low - 1e-3 <= view.elevation_deg <= low + 1 + 1e-3
    known, _ = refinement.run(latent, View(true.azimuth_deg, low), 30, None, METRIC)
    left, left_known = (
        float(refinement.residuals(z, v)[0].square().sum()) for z, v in ((bounded, view), (known, View(true.azimuth_deg, low)))
    )
    assert left < 1.1 * left_known


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_a_view_turned_to_a_pole_is_still_one(pole: float) -> None:
    """Single precision puts half of these beyond it."""
    for start in torch.linspace(0.5, 0.99, 50).tolist():
        turn = float(torch.tensor(math.radians(pole - start * pole) / TURN))
        assert _turned(View(0, start * pole), [0.0, turn]).elevation_deg == pytest.approx(pole, abs=1e-4)
