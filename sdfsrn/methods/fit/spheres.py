"""Spheres for one object, from the silhouettes of its views: centres and radii move until the masks are covered."""

from typing import Any

import torch
from torch import Tensor

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import ObjectView
from sdfsrn.fields.spheres import Spheres, coverage_entropy, largest_within
from sdfsrn.methods.fit.loop import Fit
from sdfsrn.methods.fit.pool import Rays
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.threads import share_out

RENEWED = 10  # steps between grids, which only the film needs
GRID = 48
RADIUS_RATE = 3.0  # times the learning rate of centres: radii are logarithms
SHARES = 2


class SpheresFit(Fit):
    """Spheres that are being fitted to views in the unit ball's world; one view is enough."""

    def __init__(self, views: list[ObjectView], config: FitConfig, start: Spheres | None = None) -> None:
        """They start as the largest balls within the visual hull, or as `start` says."""
        super().__init__(views, config)
        self.spheres = start or largest_within(self.hull, config.n_spheres, flat=len(views) == 1)
        groups: list[dict[str, Any]] = [
            {"params": [self.spheres.centres], "lr_scale": 1.0},
            {"params": [self.spheres.log_radii], "lr_scale": RADIUS_RATE},
        ]
        self.optimizer = torch.optim.Adam(groups)

    @property
    def field(self) -> Sdf:
        """The union of the spheres."""
        return self.spheres

    def _renew(self) -> None:
        if self.step % RENEWED == 0:
            self.grid = GridField(self.spheres, GRID)

    def _take_step(self) -> None:
        rays = self.pool.draw(self.config.n_rays, self.generator)
        order = torch.randperm(len(rays.inside), generator=self.generator)
        shares = [Rays(*(each[part] for each in rays)) for part in order.chunk(SHARES)]
        found = share_out(self._gradients, shares)
        self.spheres.centres.grad, self.spheres.log_radii.grad = (
            torch.stack(parts).mean(dim=0) for parts in zip(*(gradients for _, gradients in found), strict=True)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["lr_scale"]
        self.optimizer.step()
        self._note(("silhouette",), torch.stack([loss for loss, _ in found]).mean(dim=0, keepdim=True))

    def _gradients(self, rays: Rays) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = coverage_entropy(self.spheres.beside(rays.origins, rays.directions), rays.inside, self.temperature)
        return loss.detach(), torch.autograd.grad(loss, [self.spheres.centres, self.spheres.log_radii])
