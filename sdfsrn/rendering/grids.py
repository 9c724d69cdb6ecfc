"""A field sampled once on a grid: the cheap stand-in that says where on a ray to look, before the field itself is asked."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.meshes import BOUND, ask_nodes, cut_to_sphere, grid_points
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.silhouettes import evaluate, pick_minimum, stratified

# Cells of a grid within which a finer one asks the field: a finer cell's diagonal, 0.87 of them, and what interpolation is off.
NEAR = 1.2
USUAL = 0.99  # share of the nodes beside the surface where an error must hold: single spikes would make everything slower
SAFETY = 1.05  # times the steepest slope between nodes: between them it may be steeper


class GridField:
    """Trilinear interpolation of one shape's field in scene units; as an `Sdf` it takes points "1 n 3".

    A field may rise more or less than 1 per scene unit. `slope` is how much it typically rises beside its surface; all else here
    is the field divided by it, which is nearly a distance there. That rises by `lipschitz` per scene unit at most. `margin` is
    one cell. `error` is how far the interpolation may be off near the surface: half of what a grid of half the resolution was
    seen to be off nearly everywhere, as the error at an edge goes with the cell and on a curved surface with its square. The
    shape lies in the ball of `radius`, at least two cells from its edge.
    """

    points_at_once = 8_192

    def __init__(self, sdf: Sdf, resolution: int = 64, device: torch.device | None = None, mirror: bool = False) -> None:
        """Sample a grid of half the resolution, then the full one where it matters; `sdf` may be of low precision.

        With `mirror` the field is its own mirror image in x = 0, and half of it is asked.
        """
        self.mirror = mirror
        self._sample(sdf, resolution // 2, device)
        rough, finer = self._interpolated(resolution), self.finer(sdf, resolution)
        self._set(finer)
        near = 2 * self.margin * self.lipschitz
        is_close = finer.abs() < near
        off = (rough - finer)[is_close].abs()
        self.error = float(off.kthvalue(math.ceil(USUAL * len(off))).values) / 2 if len(off) else 0.0
        close = grid_points(resolution, device)[self.values < near]
        self.radius = min(1.0, float(torch.linalg.vector_norm(close, dim=-1).max()) + self.margin) if len(close) else 1.0

    def _sample(self, sdf: Sdf, resolution: int, device: torch.device | None) -> None:
        """Ask the field in the unit sphere and a cell around it; measure `slope` and `lipschitz`."""
        points = grid_points(resolution, device)
        away = torch.linalg.vector_norm(points, dim=-1) - 1
        cell = 2 * BOUND / (resolution - 1)
        asked = away < cell
        found = ask_nodes(lambda nodes: evaluate(sdf, nodes), points, torch.zeros_like(away), asked, self.mirror)
        self.slope, steepest = _steepness(found, away < 0, cell)
        self.lipschitz = SAFETY * steepest / self.slope
        self._set(torch.where(asked, torch.maximum(found / self.slope, away), away))

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
        """At the nodes of a finer grid: `scaled` near the surface, interpolated elsewhere."""
        values = self._interpolated(resolution)
        near = values.abs() < NEAR * self.margin * self.lipschitz
        points = grid_points(resolution, values.device)
        return ask_nodes(lambda nodes: cut_to_sphere(self.scaled(sdf)(nodes), nodes), points, values, near, self.mirror)

    def scaled(self, sdf: Sdf) -> Sdf:
        """The field itself, without a graph, divided by `slope` as the grid is."""
        return lambda points: evaluate(sdf, points) / self.slope

    def _interpolated(self, resolution: int) -> Float[Tensor, "n n n"]:
        size = (resolution, resolution, resolution)
        found = torch.nn.functional.interpolate(self.values[None, None], size=size, mode="trilinear", align_corners=True)
        return found[0, 0]


def _steepness(values: Float[Tensor, "n n n"], within: Bool[Tensor, "n n n"], cell: float) -> tuple[float, float]:
    """How much a field rises per scene unit: the median one to three cells outside its surface, and the most anywhere `within`.

    From differences of the nodes on either side: where two faces meet they mix both slopes and exceed neither.
    """
    length = torch.stack(torch.gradient(values, spacing=cell)).square().sum(dim=0).sqrt()
    steepest = float(length[within].max())
    beside = length[within & (values > cell * steepest) & (values < 3 * cell * steepest)]
    slope = float(beside.median()) if len(beside) else steepest
    return slope or 1.0, steepest
