"""One network for one object, from the silhouettes of its views: the loop of steps.

A step draws rays, finds where each comes closest to the surface, and moves the field there (DFR, Wu & Sun 2020). What is searched
is a grid of the field, renewed every few steps: coarse samples along the ray, finer ones beside the lowest, and at last the
network itself beside the lowest of these. The first steps teach the visual hull, so that the rays begin near the answer.
"""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import ObjectView
from sdfsrn.device import fast_dtype
from sdfsrn.geometry.bounds import points_in_ball
from sdfsrn.methods.fit.loop import Fit
from sdfsrn.methods.fit.pool import Rays
from sdfsrn.networks.sine_mlp import SineMlp
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import evaluate, lowest, points_at, stratified
from sdfsrn.rendering.tracing import trace
from sdfsrn.threads import share_out
from sdfsrn.training.losses import eikonal_loss, silhouette_entropy

HULL_STEPS = 0.15  # of all steps, which teach the hull
HULL_POINTS = 4_096  # of each of these steps
HULL_CLAMP = 0.1  # scene units: what lies further from the hull's surface need only be further
RENEWED = 10  # steps between grids
GRID, HULL_GRID = 64, 128  # nodes along a side of the field's grid, and of the hull's
COARSE, FINE, FINEST = 40, 6, 5  # samples of a ray: on the grid, beside the lowest of these, of the network beside that
TRACED, WITHIN = 2e-3, 8  # scene units to which rays are traced, and samples between their two ends
SPACE_WEIGHT = 10.0  # of the Eikonal term anywhere, times that beside the surface, where it rounds edges
BALL = 0.97  # radius in which points are drawn
NEAR = 0.02  # scene units that points lie beside the surface
BOUND_WEIGHT = 0.5  # of how far the field is below the hull, which is a lower bound of the distance
AVERAGED = 0.98  # of the averaged weights that each step leaves as they were
SHARES = 2  # of a step's rays and points
LOSSES = ("silhouette", "eikonal", "bound")


class _Drawn(NamedTuple):
    """A share of a step: its rays, where in their segments the samples lie, and points (1, n, 3)."""

    rays: Rays
    jitter: Tensor
    points: Tensor


class NeuralFit(Fit):
    """A network that is being fitted to views in the unit ball's world."""

    def __init__(self, views: list[ObjectView], config: FitConfig) -> None:
        """The views, of at least two sides."""
        super().__init__(views, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = SineMlp(config.hidden_dim, config.octaves)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.hull_grid = GridField(self.hull, HULL_GRID)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)

    @property
    def field(self) -> Sdf:
        """An average over the last steps' networks."""
        return self.averaged

    def _is_learning_hull(self) -> bool:
        return self.done < HULL_STEPS

    def _renew(self) -> None:
        if self.step % RENEWED == 0:
            self.grid = GridField(self.network.search_sdf(fast_dtype(torch.device("cpu"))), GRID)

    def _take_step(self) -> None:
        is_learning_hull = self._is_learning_hull()
        if is_learning_hull:
            found = share_out(self._hull_gradients, self._points(HULL_POINTS // SHARES // 2))
        else:
            found = share_out(self._ray_gradients, self._drawn())
        self._descend([torch.stack(gradients).mean(dim=0) for gradients in zip(*(each[1] for each in found), strict=True)])
        self._note(("hull",) if is_learning_hull else LOSSES, torch.stack([losses for losses, _ in found]).mean(dim=0))

    def _drawn(self) -> list[_Drawn]:
        """The rays and points of a step, in shares, all random choices made."""
        rays = self.pool.draw(self.config.n_rays, self.generator)
        order = torch.randperm(len(rays.inside), generator=self.generator)
        jitter = torch.rand(len(order), COARSE, generator=self.generator)
        points = self._points(len(order) // SHARES // 4)
        return [
            _Drawn(Rays(*(each[part] for each in rays)), jitter[part], some)
            for part, some in zip(order.chunk(SHARES), points, strict=True)
        ]

    def _points(self, count: int) -> list[Tensor]:
        """For each share `count` points in the ball and as many beside the hull's surface, (1, n, 3)."""
        drawn = []
        for _ in range(SHARES):
            anywhere = BALL * points_in_ball(1, count * 4, self.generator)
            close = evaluate(self.hull_grid, anywhere).abs() < 4 * self.hull_grid.margin
            beside = anywhere[close][:count][None]
            noise = NEAR * torch.randn(beside.shape, generator=self.generator)
            drawn.append(torch.cat([anywhere[:, :count], beside + noise], dim=1))
        return drawn

    def _hull_gradients(self, points: Tensor) -> tuple[Tensor, list[Tensor]]:
        wanted = evaluate(self.hull_grid, points) * self.hull_grid.slope
        found = self.network(points)
        # far from the surface only the side must be right, and that the surface is far
        short = torch.relu(HULL_CLAMP - found * wanted.sign())
        loss = torch.where(wanted.abs() < HULL_CLAMP, (found - wanted).abs(), short).mean()
        return loss.detach()[None], list(torch.autograd.grad(loss, list(self.network.parameters())))

    def _ray_gradients(self, drawn: _Drawn) -> tuple[Tensor, list[Tensor]]:
        rays, jitter, points = drawn
        t = self._search(rays, jitter)
        picked = (rays.origins + t[:, None] * rays.directions)[None]
        silhouette = silhouette_entropy(self.network(picked), rays.inside[None], self.temperature)
        leaf = points.requires_grad_()
        values = self.network(leaf)
        (gradient,) = torch.autograd.grad(values.sum(), leaf, create_graph=True)
        half = points.shape[1] - points.shape[1] // 2
        eikonal = SPACE_WEIGHT * eikonal_loss(gradient[:, :half]) + eikonal_loss(gradient[:, half:])
        least = (evaluate(self.hull_grid, points.detach()) - self.hull_grid.error) * self.hull_grid.slope - self.pixel
        bound = (torch.relu(least - values) * (least > 0)).mean()
        loss = silhouette + self.config.eikonal_weight * eikonal + BOUND_WEIGHT * bound
        gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        return torch.stack([silhouette, eikonal, bound]).detach(), list(gradients)

    @torch.no_grad()
    def _search(self, rays: Rays, jitter: Float[Tensor, "n samples"]) -> Float[Tensor, " n"]:
        """Where each ray is lowest: roughly, then by the network beside that place."""
        origins, directions = rays.origins[None], rays.directions[None]
        if self.config.ray_search == "tracing":
            rough = self._traced(origins, directions)
        else:
            rough = self._sampled(origins, directions, jitter)
        t = rough[..., None] + self.grid.margin * torch.linspace(-0.5, 0.5, FINEST)
        return self._lowest_of_network(origins, directions, t)[0]

    def _sampled(self, origins: Tensor, directions: Tensor, jitter: Tensor) -> Tensor:
        near, far, _ = self.grid.ball_interval(origins, directions, self.grid.margin)
        t = near[..., None] + (far - near)[..., None] * (torch.arange(COARSE) + jitter) / COARSE
        best, _ = lowest(self._on_grid(origins, directions, t), t)
        spacing = (far - near) / COARSE
        t = stratified(torch.maximum(best - spacing, near), torch.minimum(best + spacing, far), FINE, None)
        return lowest(self._on_grid(origins, directions, t), t)[0]

    def _traced(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Between entry and exit for rays that meet the surface, where they came closest for the others."""
        found = trace(self.network, origins, directions, self.grid.slope * self.grid.lipschitz, TRACED)
        return self._lowest_of_network(origins, directions, stratified(found.entry, found.leave, WITHIN, None))

    def _lowest_of_network(self, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
        return lowest(self.network(points_at(origins, directions, t).flatten(1, 2)).view(t.shape), t)[0]

    def _on_grid(self, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
        return self.grid(points_at(origins, directions, t).flatten(1, 2)).view(t.shape)

    def _descend(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient.contiguous()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        share = 1 - min(AVERAGED, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), share)
