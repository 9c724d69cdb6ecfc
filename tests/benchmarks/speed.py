"""How fast: training, one differentiable render, pictures, meshes, and what grows with the number of shapes."""

import dataclasses
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch

from sdfsrn.config import WEIGHTS, ReconstructionConfig, SdfSrnConfig, SyntheticData, View, ring
from sdfsrn.data.synthetic import make_views
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette, stratified
from sdfsrn.rendering.views import minimum_picture
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import median_s
from tests.benchmarks.plain import PlainRun
from tests.sdfsrn.rendering.plain import plain_minimum

TARGET = 0.005
LOOK_EVERY = 10  # epochs
# Epochs that the plain recipe took to the same point, by `python -m tests.benchmarks --plain-epochs`.
PLAIN_EPOCHS: int | None = None


def _run_to_target(run: Run, limit_s: float) -> dict[str, Any]:
    """Train until silhouette loss and wrong pixels are below the target; looking is not counted."""
    seconds, reached, at_60 = 0.0, None, None
    fit = (1.0, 1.0, 0.0)
    while run.epoch < run.config.epochs and seconds < limit_s:
        start = time.perf_counter()
        run.train_epoch()
        seconds += time.perf_counter() - start
        if run.epoch % LOOK_EVERY == 0 or run.epoch == run.config.epochs:
            run.model.eval()
            fit = training_fit(run.model, run.views, encode(run.model, run.views), run.config.temperature)
            if reached is None and max(fit[:2]) <= TARGET:
                reached = {"seconds": seconds, "epochs": run.epoch}
            if seconds <= 60:
                at_60 = fit[1]
    return {"reached": reached, "wrong_pixels_60s": at_60, "seconds": seconds, "loss": fit[0], "wrong": fit[1]}
