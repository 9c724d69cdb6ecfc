"""What is sent to the model and what its answers are held against, by closed forms and by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sdfsrn.config import WEIGHTS, SyntheticData, View
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.data.synthetic import CAMERA_DISTANCE, FOVY_DEG, make_scenes
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.images import mask_circle
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor
from tests.benchmarks.quality import known_to, served_figures, with_grown_mask
from tests.benchmarks.served import (
    LARGEST,
    NO_ANSWER,
    OFF_CENTRE,
    SIDE,
    SMALLEST,
    Given,
    ask,
    given,
    scaled,
    silhouettes,
    view_error_deg,
)

MASK_RADIUS = 0.22
SIX = SyntheticData(n_shapes=6, seed=77)
SPHERE, BOX = 0, 1  # of KINDS


def ball_radius(mask_radius: float) -> float:
    """Of the ball whose mask has this radius: a cone around the ball touches it under asin(r / d)."""
    return CAMERA_DISTANCE * math.sin(math.atan(mask_radius * 2 * math.tan(math.radians(FOVY_DEG) / 2)))


def at(azimuth: float, elevation: float, family: str = "box") -> Given:
    (first,) = given(SyntheticData(n_shapes=1), MASK_RADIUS)
    return replace(first, family=family, view=View(float(azimuth), float(elevation)))


def test_the_mask_of_a_picture_has_the_drawn_size_and_place() -> None:
    placed = torch.rand(6, 3, generator=torch.Generator().manual_seed(SIX.seed + 3_000_003)).tolist()
    for asked, (size, right, down) in zip(given(SIX, MASK_RADIUS), placed, strict=True):
        x, y, radius = (part / SIDE for part in mask_circle(asked.picture.mask))
        assert radius == pytest.approx(SMALLEST * (LARGEST / SMALLEST) ** size, rel=0.03), "the mask it is drawn from has 64 pixels"
        wanted = (0.5 + OFF_CENTRE * (2 * right - 1), 0.5 + OFF_CENTRE * (2 * down - 1))
        assert (x, y) == pytest.approx(wanted, abs=0.006)


def test_a_shift_moves_the_object_by_so_many_pixels() -> None:
    for shift in ((2, 0), (0, 0.5)):
        for still, moved in zip(given(SIX, MASK_RADIUS), given(SIX, MASK_RADIUS, shift), strict=True):
            x, y, _ = mask_circle(still.picture.mask)
            assert mask_circle(moved.picture.mask)[:2] == pytest.approx((x + shift[0], y + shift[1]), abs=0.2)
            assert torch.equal(still.shape.half_extents, moved.shape.half_extents)


def test_a_grown_mask_is_one_pixel_larger_on_all_sides() -> None:
    for asked in given(SIX, MASK_RADIUS):
        rows, columns = np.nonzero(asked.picture.mask)
        grown_rows, grown_columns = np.nonzero(with_grown_mask(asked).picture.mask)
        assert (grown_rows.min(), grown_rows.max()) == (rows.min() - 1, rows.max() + 1)
        assert (grown_columns.min(), grown_columns.max()) == (columns.min() - 1, columns.max() + 1)


def test_the_truth_has_the_radius_of_the_training_masks() -> None:
    ball = scaled(Primitives(torch.full((1, 3), 0.3), torch.tensor([SPHERE])), View(40.0, 10.0), MASK_RADIUS)
    assert float(ball.half_extents[0, 0]) == pytest.approx(ball_radius(MASK_RADIUS), rel=0.005)
    for asked, drawn in zip(given(SIX, MASK_RADIUS), make_scenes(SIX).shapes.half_extents, strict=True):
        seen = silhouettes(asked.shape, (asked.view,), 640)[0].numpy()
        assert mask_circle(seen)[2] / 640 == pytest.approx(MASK_RADIUS, rel=0.005)
        shares = asked.shape.half_extents[0] / drawn
        assert float(shares.max() / shares.min()) == pytest.approx(1), "its proportions stay"


@pytest.mark.parametrize(
    ("estimated", "error"),
    [((30, 20), 0), ((210, 20), 0), ((150, -20), 0), ((330, -20), 0), ((30, -20), 40), ((40, 20), None), ((210, 15), 5)],
    ids=["true", "turned about y", "about x", "about z", "from below", "10 aside", "turned about y, 5 below"],
)
def test_view_errors_of_a_box_are_modulo_half_turns(estimated: tuple[float, float], error: float | None) -> None:
    told = dict(zip(("azimuth_deg", "elevation_deg"), estimated, strict=True))
    if error is None:  # spherical law of cosines
        up = math.radians(20)
        error = math.degrees(math.acos(math.sin(up) ** 2 + math.cos(up) ** 2 * math.cos(math.radians(10))))
    assert view_error_deg(at(30, 20), told) == pytest.approx(error, abs=1e-3)
    assert view_error_deg(at(30, 20, "sphere"), told) == 0


class FindsNothing(Reconstructor):
    """The shipped model on a day on which it finds no surface."""

    def run(self, *args: Any, **settings: Any) -> dict[str, Any]:  # noqa: ARG002
        raise ReconstructionFailed("the model found no shape in this picture")


def test_a_shape_that_is_not_found_counts_as_nothing_and_stops_nothing() -> None:
    served = FindsNothing.load(WEIGHTS / "default.safetensors")
    assert ask(served, at(30, 20), solid=True) == NO_ANSWER
    assert (NO_ANSWER.novel_iou, NO_ANSWER.iou_3d, NO_ANSWER.input_iou, NO_ANSWER.view_error_deg) == (0, 0, 0, 180)


@pytest.mark.slow
def test_the_shipped_model_is_measured_beside_answers_without_a_network() -> None:
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    known = known_to(served, synthetic_dataset(SyntheticData(n_shapes=6, seed=78), served.checkpoint.mask_radius))
    found = served_figures(served, known, 2, (2_000_000, 2_000_001))
    assert found["served_shapes"] == 4
    assert found["served_novel_iou"] > 0.85 and found["served_iou_3d"] > 0.7 and found["served_input_iou"] > 0.9
    assert found["served_novel_iou"] == pytest.approx((found["served_novel_iou_sphere"] + found["served_novel_iou_box"]) / 2)
    assert found["served_view_error_deg_median_without_spheres"] >= found["served_view_error_deg_median"]
    assert found["served_novel_iou_of_right_family"] > 0.97, "it knows nearly all"
    others = ("retrieval", "mask_repeated", "mean_shape", "visual_hull")
    assert all(0.2 < found[f"served_novel_iou_of_{name}"] < found["served_novel_iou_of_right_family"] for name in others)
