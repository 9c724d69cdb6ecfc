"""Training until the published recipe is good."""

import time
from collections.abc import Callable
from typing import Any

import torch

from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.training.sdf_srn import Run

TARGET = 0.005
LOOK_EVERY = 5  # epochs
AT_ONCE = 5  # pictures


def run_to_target(
    run: Run, limit_s: float, tell: Callable[[str], None] = lambda text: None, *, least_s: float = 60
) -> dict[str, Any]:
    """Train until silhouette loss and wrong pixels are at the target and `least_s` are over; looking is not counted."""
    seconds, reached, at_60 = 0.0, None, None
    while run.epoch < run.config.epochs and seconds < limit_s and (reached is None or seconds < least_s):
        start = time.perf_counter()
        run.train_epoch()
        epoch_s = time.perf_counter() - start
        seconds += epoch_s
        if reached is None and (run.epoch % LOOK_EVERY == 0 or run.epoch == run.config.epochs):
            if is_at_target(run):
                reached = {"seconds": seconds, "epochs": run.epoch}
            tell(f"epoch {run.epoch}, {seconds:.0f} s: {'at the target' if reached else 'not yet at the target'}")
        if at_60 is None and seconds + epoch_s > 60:
            at_60 = training_fit(run.averaged, run.views, encode(run.averaged, run.views), run.config.temperature)[1]
    return {"reached": reached, "wrong_pixels_60s": at_60}


def is_at_target(run: Run) -> bool:
    """Whether both means over all pictures are; searched in low precision first, which is quicker and refuses most."""
    return all(_is_at_target(run, dtype) for dtype in dict.fromkeys((run.fast_dtype, torch.float32)))


def _is_at_target(run: Run, search_dtype: torch.dtype) -> bool:
    """No further pictures are looked at once the sum of those seen is too large."""
    latents, temperature, count = encode(run.averaged, run.views), run.config.temperature, len(run.views)
    loss, wrong = 0.0, 0.0
    for first in range(0, count, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        part_loss, part_wrong, _ = training_fit(run.averaged, run.views[part], latents[part], temperature, search_dtype)
        share = len(latents[part]) / count
        loss, wrong = loss + part_loss * share, wrong + part_wrong * share
        if max(loss, wrong) > TARGET:
            return False
    return True
