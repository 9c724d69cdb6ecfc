"""What training asks of the views."""

import torch
from scipy import ndimage

from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import make_views
from sdfsrn.data.views import outline_bands, pixels_outwards, pixels_reaching
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays


def test_the_first_pixels_outwards_are_those_that_meet_the_sphere() -> None:
    distances = torch.tensor([0.9, 2.5, 7.0])
    c2w = orbit_c2w(torch.tensor([10.0, 200.0, 77.0]), torch.tensor([5.0, -30.0, 60.0]), distances)
    order, cosines = pixels_outwards(50.0, 64)
    reaching = pixels_reaching(cosines, distances)
    _, _, meets = unit_sphere_interval(*pixel_rays(c2w, 50.0, 64))
    for i in range(3):
        assert set(order[: reaching[i]].tolist()) == set(meets[i].nonzero()[:, 0].tolist())


def test_an_outlines_band_is_what_has_both_sides_near() -> None:
    """Against SciPy's chessboard distance."""
    _, views = make_views(SyntheticData(n_shapes=3, seed=4))
    bands = outline_bands(views.masks, 3)
    for mask, band in zip(views.masks.numpy(), bands.numpy(), strict=True):
        inside, outside = (ndimage.distance_transform_cdt(part, "chessboard") for part in (mask, ~mask))
        assert (band == ((inside <= 3) & (outside <= 3))).all()
    assert not outline_bands(torch.zeros(1, 8, 8, dtype=torch.bool), 3).any(), "nothing has no outline"
