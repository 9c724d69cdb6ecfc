"""What the tests and benchmarks send: pictures of a data set as those of a stranger."""

from sdfsrn.config import View
from sdfsrn.data.views import TrainingViews
from sdfsrn.images import Picture


def picture_of(views: TrainingViews, i: int) -> Picture:
    """One picture with its mask."""
    return Picture(views.images[i].permute(1, 2, 0).numpy(), views.masks[i].numpy())


def view_of(views: TrainingViews, i: int) -> View:
    """Where it was taken from."""
    return View(float(views.azimuth_deg[i]), float(views.elevation_deg[i]))
