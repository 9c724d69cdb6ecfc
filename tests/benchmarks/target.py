"""Training until the published recipe is good."""

import time
from collections.abc import Callable
from typing import Any

from sdfsrn.data.views import TrainingViews
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.training.sdf_srn import Run

TARGET = 0.005
LOOK_EVERY = 5  # epochs
FEW = 5  # pictures that must be nearly good before all are looked at


def run_to_target(
    run: Run, limit_s: float, tell: Callable[[str], None] = lambda text: None, *, least_s: float = 60
) -> dict[str, Any]:
    """Train until silhouette loss and wrong pixels are at the target and `least_s` are over; looking is not counted."""
    seconds, reached, at_60 = 0.0, None, None
    while run.epoch < run.config.epochs and seconds < limit_s and (reached is None or seconds < least_s):
        start = time.perf_counter()
        run.train_epoch()
        seconds += time.perf_counter() - start
        if run.epoch % LOOK_EVERY == 0 or run.epoch == run.config.epochs:
            loss, wrong = _fit(run, run.views[:FEW])
            if max(loss, wrong) <= 1.5 * TARGET:  # a look at all of them takes as long as many epochs
                loss, wrong = _fit(run, run.views)
            tell(f"epoch {run.epoch}, {seconds:.0f} s: loss {loss:.4f}, wrong pixels {wrong:.4f}")
            if reached is None and max(loss, wrong) <= TARGET:
                reached = {"seconds": seconds, "epochs": run.epoch}
            if seconds <= 60:
                at_60 = wrong
    return {"reached": reached, "wrong_pixels_60s": at_60}


def _fit(run: Run, views: TrainingViews) -> tuple[float, float]:
    return training_fit(run.averaged, views, encode(run.averaged, views), run.config.temperature)[:2]
