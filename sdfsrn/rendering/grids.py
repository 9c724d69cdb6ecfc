"""A field sampled once on a grid: the cheap stand-in that says where on a ray to look, before the field itself is asked."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.meshes import BOUND, ask_nodes, grid_points, sample_grid
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.silhouettes import evaluate, pick_minimum, stratified

# Cells of a grid beyond which a finer one interpolates it: what is looked at, a finer cell's diagonal beside the surface, is not.
NEAR = 1.6


class GridField:
    """Trilinear interpolation of one shape's field; as an `Sdf` it takes points "1 n 3".

    `margin` is one cell. `error` is how far the interpolation may be off near the surface: half of what a grid of half the
    resolution was seen to be off, as the error at an edge goes with the cell and on a curved surface with its square. The
    shape lies in the ball of `radius`, at least two cells from its edge.
    """

    def __init__(self, sdf: Sdf, resolution: int = 64, device: torch.device | None = None, mirror: bool = False) -> None:
        """Sample a grid of half the resolution, then the full one where it matters; `sdf` may be of low precision.

        With `mirror` the field is its own mirror image in x = 0, and half of it is asked.
        """
        self.mirror = mirror
        self._set(sample_grid(lambda points: evaluate(sdf, points), resolution // 2, device, mirror))
        rough, finer = self._interpolated(resolution), self.finer(sdf, resolution)
        self._set(finer)
        is_close = finer.abs() < 2 * self.margin
        self.error = float((rough - finer)[is_close].abs().max()) / 2 if is_close.any() else 0.0
        close = grid_points(resolution, device)[self.values < 2 * self.margin]
        self.radius = min(1.0, float(torch.linalg.vector_norm(close, dim=-1).max()) + self.margin) if len(close) else 1.0

    def _set(self, values: Float[Tensor, "n n n"]) -> None:
        self.values = values
        self.margin = 2 * BOUND / (values.shape[0] - 1)

    def __call__(self, points: Float[Tensor, "1 n 3"]) -> Float[Tensor, "1 n"]:
        # grid_sample wants the volume's last axis first, and has one thread for each batch entry, on a CPU. `evaluate` comes
        # with powers of two; where they cannot be shared out evenly, one thread does it all.
        n_threads = torch.get_num_threads() if points.device.type == "cpu" else 1
        n_parts = n_threads if points.shape[1] % n_threads == 0 else 1
        volume = self.values.permute(2, 1, 0).expand(n_parts, 1, -1, -1, -1)
        where = (points / BOUND).view(n_parts, 1, 1, points.shape[1] // n_parts, 3)
        found = torch.nn.functional.grid_sample(volume, where, mode="bilinear", padding_mode="border", align_corners=True)
        return found.reshape(points.shape[:2])

    def ball_interval(
        self, rays_o: Float[Tensor, "1 n 3"], rays_d: Float[Tensor, "1 n 3"], more: float = 0.0
    ) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n"], Bool[Tensor, "1 n"]]:
        """`unit_sphere_interval`, of the ball of `radius` and a little `more`."""
        radius = self.radius + more
        near, far, meets = unit_sphere_interval(rays_o / radius, rays_d)
        return near * radius, far * radius, meets

    def ray_minimum(
        self, rays_o: Float[Tensor, "1 n 3"], rays_d: Float[Tensor, "1 n 3"], n_samples: int
    ) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n"], Bool[Tensor, "1 n"]]:
        """Each ray's smallest value at mid-segment samples: its `t`, the value, and whether the ray meets the unit sphere.

        `n_samples` would span the unit sphere; as many as that density asks for span the ball of `radius` that holds the shape.
        A ray that misses this ball is sampled once, where it comes closest to the centre.
        """
        near, far, reaches = self.ball_interval(rays_o, rays_d)
        t = near.clone()
        smallest = torch.empty_like(near)
        past = ~reaches
        smallest[past] = evaluate(self, (rays_o + near[..., None] * rays_d)[past][None])[0]
        inner = stratified(near[reaches][None], far[reaches][None], math.ceil(n_samples * self.radius), None)
        found = pick_minimum(self, rays_o[reaches][None], rays_d[reaches][None], inner)
        t[reaches], smallest[reaches] = found[0][0], found[1][0]
        return t, smallest, unit_sphere_interval(rays_o, rays_d)[2]

    def finer(self, sdf: Sdf, resolution: int) -> Float[Tensor, "n n n"]:
        """The field at the nodes of a finer grid: asked itself near the surface, interpolated elsewhere."""
        values = self._interpolated(resolution)
        near = values.abs() < NEAR * self.margin
        points = grid_points(resolution, values.device)
        return ask_nodes(lambda nodes: evaluate(sdf, nodes), points, values, near, self.mirror)

    def _interpolated(self, resolution: int) -> Float[Tensor, "n n n"]:
        size = (resolution, resolution, resolution)
        found = torch.nn.functional.interpolate(self.values[None, None], size=size, mode="trilinear", align_corners=True)
        return found[0, 0]
