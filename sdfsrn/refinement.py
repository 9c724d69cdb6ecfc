"""Latent optimisation: latent and view moved until silhouette and mask agree (DeepSDF, Park et al. 2019, eq. 10)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.config import View
from sdfsrn.device import fast_dtype
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.networks.model import Model
from sdfsrn.rendering.silhouettes import seek_minimum, stratified
from sdfsrn.rendering.views import Camera

SAMPLES = 32  # per ray
PRIOR = 0.001  # weight of the latent's squared way from its start, beside the rays' squared residuals in scene units
TURN = 7.0  # radians per unit of the angles' coordinates: damped alike, a view then moves about as readily as a latent
DAMPING, LESS, MORE = 1.0, 1 / 3, 4.0  # at the start; its factors after a step that helped and after one that did not
STUCK = 1e4  # damping with which no step is long enough to matter
GAIN = 1e-3  # share of the cost: a step that gains less is the last


class Refinement:
    """One mask, and the search for the latent and the view on an orbit that explain it.

    The smallest signed distance along a pixel's ray shall be below -margin inside the mask and above the margin outside it; what
    a ray falls short of that is its residual, in scene units. The margin, `margin_px` pixels, keeps the outline between the
    pixels' centres rather than on them; a wide one also keeps the field steep there.
    """

    def __init__(
        self,
        model: Model,
        mask: Bool[Tensor, "size size"],
        distance: float,
        fovy_deg: float,
        margin_px: float,
        generator: torch.Generator,
    ) -> None:
        self.model, self.distance, self.fovy_deg, self.size = model, distance, fovy_deg, len(mask)
        camera = self._camera(View(0, 0))
        # wherever on its orbit a camera stands, a pixel's ray crosses the unit sphere at the same distances from it
        near, far, meets = unit_sphere_interval(*camera.rays())
        self.meets = meets[0]
        self.t = stratified(near[meets], far[meets], SAMPLES, generator)
        self.outside = 1 - 2 * mask.flatten()[self.meets].float()  # 1 or, inside, -1
        self.margin = margin_px * camera.pixel_width()

    def run(
        self,
        latent: Float[Tensor, "1 latent_dim"],
        view: View,
        steps: int,
        elevations: tuple[float, float] | None,
        metric: Float[Tensor, "latent_dim latent_dim"],
        progress: Callable[[int], None] = lambda step: None,
    ) -> tuple[Float[Tensor, "1 latent_dim"], View]:
        """The latent and the view after at most `steps` trials of damped least squares (Levenberg 1944).

        The view moves too, within `elevations` in degrees, or is known where there are none. One point of each ray counts, so
        a single backward pass gives the derivatives of every ray, and a trial solves one small linear system. `metric` says how
        far a change of the latent is: the identity, or the precision of the training's codes, along which shapes stay likely.
        """
        n_latent = latent.shape[1]
        start = torch.cat([latent[0].detach(), latent.new_zeros(0 if elevations is None else 2)])
        prior = torch.zeros(len(start), len(start), device=start.device)
        prior[:n_latent, :n_latent] = PRIOR * metric
        # the last coordinate is the elevation's
        low, high = (math.radians(end - view.elevation_deg) / TURN for end in elevations or (-90, 90))

        def look(place: Tensor) -> tuple[float, Tensor, Tensor]:
            residuals, jacobian = self.residuals(place[None, :n_latent], _turned(view, place[n_latent:].tolist()))
            cost = residuals.square().sum() + (place - start) @ prior @ (place - start)
            return float(cost), residuals, jacobian[:, : len(place)]

        best, damping = start, DAMPING
        cost, residuals, jacobian = look(best)
        for step in range(steps):
            progress(step)
            slope = jacobian.T @ residuals + prior @ (best - start)
            if elevations and bool(best[-1] <= low if slope[-1] > 0 else best[-1] >= high):
                jacobian[:, -1] = slope[-1] = 0  # it would leave its bounds: the others move without it
            damped = damping * torch.eye(len(start), device=start.device)
            trial = best - torch.linalg.solve(jacobian.T @ jacobian + prior + damped, slope)
            if elevations:
                trial[-1] = trial[-1].clamp(low, high)
            if not bool(trial.isfinite().all()):
                break
            found = look(trial)
            gain = 1 - found[0] / cost if cost else 0.0
            if gain > 0:
                best, (cost, residuals, jacobian) = trial, found
            damping *= LESS if gain > 0 else MORE
            if 0 < gain < GAIN or damping > STUCK:
                break
        return best[None, :n_latent], _turned(view, best[n_latent:].tolist())

    def residuals(
        self, latent: Float[Tensor, "1 latent_dim"], view: View
    ) -> tuple[Float[Tensor, " rays"], Float[Tensor, "rays latent_dim+2"]]:
        """What the rays fall short of, and its derivatives by the latent and by azimuth and elevation, in TURN radians."""
        camera = self._camera(view)
        rays_o, rays_d = (rays[:, self.meets] for rays in camera.rays())
        t, _ = seek_minimum(self.model.search_sdf(latent, fast_dtype(self.model.device)), rays_o, rays_d, self.t[None])
        # a ray's own copy of the latent gets its own derivative; where its lowest point lies is constant (Danskin's theorem)
        latents = latent.expand(len(self.t), -1).clone().requires_grad_()
        points = (rays_o + t[..., None] * rays_d)[0].requires_grad_()
        minima = self.model.sdf(latents)(points[:, None])[:, 0]
        by_latent, by_point = torch.autograd.grad(minima.sum(), (latents, points))
        # the points turn with the camera: about the vertical with its azimuth, about its right with its elevation
        axes = torch.stack([points.new_tensor([0.0, 1.0, 0.0]), -camera.c2w[0, :3, 0]])
        by_angle = TURN * (torch.linalg.cross(axes[None], points.detach()[:, None]) * by_point[:, None]).sum(-1)
        short = self.margin - self.outside * minima.detach()
        return short.relu(), -(self.outside * (short > 0))[:, None] * torch.cat([by_latent, by_angle], dim=1)

    def _camera(self, view: View) -> Camera:
        return Camera.on_orbit([view], self.distance, self.fovy_deg, self.size, self.model.device)


def _turned(view: View, turns: list[float]) -> View:
    if not turns:
        return view
    azimuth, elevation = (math.degrees(turn * TURN) for turn in turns)
    # a bound of 90 degrees, rounded to single precision, may lie beyond
    return View((view.azimuth_deg + azimuth) % 360, min(90.0, max(-90.0, view.elevation_deg + elevation)))
