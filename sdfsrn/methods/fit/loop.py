"""What every fit of one object shares: its budget, its rays, its temperature, its record of losses."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import ObjectView, hull_of
from sdfsrn.methods.fit.pool import RayPool
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.threads import undivided_operations

TEMPERATURE = 0.02  # of the silhouettes in the first steps, scene units
SHARPEST = 0.3  # times a pixel's width: the temperature of the last steps
SHARPENED = 2 / 3  # of the steps, after which it is that
WARMING = 20  # steps until the learning rate is at its highest
LAST_RATE = 0.02  # of the highest learning rate, at the end


class Fit(ABC):
    """A field that is being fitted to views in the unit ball's world.

    `hull` is the views' visual hull. `grid` stands for the field as it was a few steps ago. `history` has a row of losses for each
    step.
    """

    grid: GridField

    def __init__(self, views: list[ObjectView], config: FitConfig) -> None:
        self.config = config
        self.hull = hull_of(views)
        self.pool = RayPool(views, config.seed)
        self.pixel = sorted(view.camera.pixel_width for view in views)[len(views) // 2]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[dict[str, float]] = []
        self.step = 0
        self._began = time.monotonic()

    @property
    @abstractmethod
    def field(self) -> Sdf:
        """The shape so far."""

    @abstractmethod
    def _renew(self) -> None:
        """Make `grid` anew, if it is time to."""

    @abstractmethod
    def _take_step(self) -> None:
        """One step of the optimiser."""

    def run(self, after_step: Callable[["Fit"], None]) -> None:
        """All steps, or as many as `config.seconds` allow; `after_step` may raise, which is how a caller stops."""
        self._began = time.monotonic()
        while self.done < 1:
            self._renew()
            with undivided_operations():
                self._take_step()
            self.step += 1
            after_step(self)

    @property
    def done(self) -> float:
        """The share of the budget that is spent."""
        spent = self.step / self.config.steps
        if self.config.seconds is not None:
            spent = max(spent, (time.monotonic() - self._began) / self.config.seconds)
        return min(1.0, spent)

    @property
    def temperature(self) -> float:
        """Falls from TEMPERATURE to SHARPEST pixels over the first SHARPENED of the steps."""
        last = min(TEMPERATURE, SHARPEST * self.pixel)
        return float(TEMPERATURE * (last / TEMPERATURE) ** min(1.0, self.done / SHARPENED))

    @property
    def rate(self) -> float:
        """The learning rate of this step: it rises at first, then falls as a cosine."""
        falling = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * self.done)) / 2
        return self.config.learning_rate * min(1.0, (self.step + 1) / WARMING) * falling

    def _note(self, names: tuple[str, ...], losses: Tensor) -> None:
        self.history.append({"step": self.step, **dict(zip(names, losses.tolist(), strict=True))})
