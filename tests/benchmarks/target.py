"""Training until the published recipe is good."""

import copy
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdfsrn.device import fast_dtype
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.networks.model import Model
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.training.sdf_srn import Run

TARGET = 0.005
LOOK_EVERY = 5  # epochs
AT_ONCE = 5  # pictures
GRID = 32  # nodes per side of what a look searches with


@dataclass(frozen=True)
class Kept:
    """What would be served after so many epochs, and the seconds that they took."""

    epochs: int
    seconds: float
    model: Model


def trained(run: Run, limit_s: float = math.inf, epochs: int | None = None) -> Iterator[Kept]:
    """Train for `limit_s`, so many epochs or to the end; between these looks at what it keeps no time is counted."""
    seconds = 0.0
    while run.epoch < (epochs or run.config.epochs) and seconds < limit_s:
        start = time.perf_counter()
        run.train_epoch()
        seconds += time.perf_counter() - start
        if run.epoch % LOOK_EVERY == 0 and seconds <= limit_s:
            yield Kept(run.epoch, seconds, copy.deepcopy(run.averaged))


def train_for(run: Run, limit_s: float = math.inf, epochs: int | None = None) -> list[Kept]:
    """All that `trained` keeps; looking at it is for later."""
    return list(trained(run, limit_s, epochs))


def train_to_target(run: Run, limit_s: float) -> Kept | None:
    """What it keeps when it is first at the target, looked at one by one, as bisection may find a later one."""
    return next((one for one in trained(run, limit_s) if is_at_target(run, one.model)), None)


def first_at_target(run: Run, kept: list[Kept]) -> Kept | None:
    """The first at the target, sought by bisection, as looking is slow: what is there once stays there."""
    first = bisect_left(kept, True, key=lambda one: is_at_target(run, one.model, on_grids(one.model)))
    return next((one for one in kept[first:] if is_at_target(run, one.model)), None)


def epochs_to_target(run: Run, tell: Callable[[str], None] = lambda text: None) -> int | None:
    """Train no longer than need be."""
    while run.epoch < run.config.epochs:
        run.train_epoch()
        if run.epoch % LOOK_EVERY == 0:
            reached = is_at_target(run, run.averaged)
            tell(f"epoch {run.epoch}: {'at the target' if reached else 'not yet'}")
            if reached:
                return run.epoch
    return None


def is_at_target(run: Run, model: Model, search: Callable[[Tensor], Sdf] | None = None) -> bool:
    """Whether silhouette loss and wrong pixels are; no further pictures are looked at once the sum of those seen is too large."""
    latents, temperature, count = encode(model, run.views), run.config.temperature, len(run.views)
    loss, wrong = 0.0, 0.0
    for first in range(0, count, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        part_loss, part_wrong, _ = training_fit(model, run.views[part], latents[part], temperature, search)
        share = len(latents[part]) / count
        loss, wrong = loss + part_loss * share, wrong + part_wrong * share
        if max(loss, wrong) > TARGET:
            return False
    return True


def on_grids(model: Model) -> Callable[[Tensor], Sdf]:
    """To search with: the fields of latents interpolated on grids, which is quicker and all but exact."""

    def search(latents: Tensor) -> Sdf:
        low = fast_dtype(model.device)
        grids = [GridField(model.search_sdf(latent[None], low), GRID, model.device) for latent in latents]
        return lambda points: torch.cat([grid(part[None]) for grid, part in zip(grids, points, strict=True)])

    return search
