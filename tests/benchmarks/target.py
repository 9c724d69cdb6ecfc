"""Training until the published recipe is good."""

import time
from collections.abc import Callable
from typing import Any

from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.training.sdf_srn import Run

TARGET = 0.005
LOOK_EVERY = 5  # epochs


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
            loss, wrong, _ = training_fit(run.averaged, run.views, encode(run.averaged, run.views), run.config.temperature)
            tell(f"epoch {run.epoch}, {seconds:.0f} s: loss {loss:.4f}, wrong pixels {wrong:.4f}")
            if reached is None and max(loss, wrong) <= TARGET:
                reached = {"seconds": seconds, "epochs": run.epoch}
            if seconds <= 60:
                at_60 = wrong
    return {"reached": reached, "wrong_pixels_60s": at_60}
