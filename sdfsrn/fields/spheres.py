"""A shape of spheres: centres and radii, nothing else."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sdfsrn.fields.hull import VisualHull

LEAST_RADIUS = 1e-3  # scene units
START_GRID, FLAT_GRID = 48, 160  # nodes along each side of the grid, or of the plane, on which spheres are placed first


class Spheres(nn.Module):
    """The union of spheres: points "batch n 3" -> signed distance "batch n", exact outside, negative inside."""

    def __init__(self, centres: Float[Tensor, "spheres 3"], radii: Float[Tensor, " spheres"]) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres.clone())
        self.log_radii = nn.Parameter(radii.clamp(min=LEAST_RADIUS).log())

    @property
    def radii(self) -> Float[Tensor, " spheres"]:
        """Scene units, positive."""
        return self.log_radii.exp()

    def forward(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        distance: Tensor = (torch.cdist(points, self.centres.expand(len(points), -1, -1)) - self.radii).amin(dim=-1)
        return distance

    def beside(self, rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]) -> Float[Tensor, "n spheres"]:
        """How far each ray passes each sphere at least, negative where it meets it: in closed form, no samples.

        Spheres behind a ray's origin are as far as the origin is from them.
        """
        to_centres = self.centres - rays_o[:, None]
        along = (to_centres * rays_d[:, None]).sum(dim=-1).clamp(min=0)
        square = to_centres.square().sum(dim=-1) - 2 * along * (to_centres * rays_d[:, None]).sum(dim=-1) + along.square()
        return square.clamp(min=1e-12).sqrt() - self.radii


def coverage_entropy(beside: Float[Tensor, "n spheres"], inside: Bool[Tensor, " n"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of a soft silhouette times the temperature: a ray is covered if any sphere covers it.

    What spheres leave uncovered is the product of what each leaves, 1 - sigmoid(-d / temperature). So a pixel of the object that
    no sphere covers draws the nearest one at full strength, however far that is.
    """
    log_open = -functional.softplus(-beside / temperature).sum(dim=-1)
    # 1 - exp(log_open) loses its digits where almost nothing is covered; what each sphere covers then adds up
    added = torch.logsumexp(functional.logsigmoid(-beside / temperature), dim=-1)
    log_covered = torch.where(log_open > -1e-3, added, torch.log(-torch.expm1(log_open.clamp(max=-1e-3))))
    return -temperature * torch.where(inside, log_covered, log_open).mean()


def largest_within(hull: VisualHull, count: int, flat: bool) -> Spheres:
    """The largest ball within a hull, then the largest around a place that the earlier ones leave out, and so on.

    With `flat` centres lie in the plane through the origin across the only view's axis: one silhouette does not say how deep an
    object is. Raises ValueError if the hull is empty.
    """
    if flat:
        axis = torch.linspace(-1, 1, FLAT_GRID)
        nodes = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2) @ hull.across(0)
    else:
        axis = torch.linspace(-1, 1, START_GRID)
        nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    depth = -hull(nodes[None])[0]
    kept = (depth > LEAST_RADIUS) & (torch.linalg.vector_norm(nodes, dim=-1) < 1)
    nodes, depth = nodes[kept], depth[kept]
    if not len(nodes):
        raise ValueError("no place of the unit ball lies inside all masks")
    left, centres, radii = depth.clone(), [], []
    for _ in range(count):
        place = int(left.argmax())
        centres.append(nodes[place])
        radii.append(depth[place])
        outside = torch.linalg.vector_norm(nodes - nodes[place], dim=-1) - depth[place]
        left = torch.where(outside > 0, torch.minimum(left, depth * (outside / depth).clamp(max=1)), torch.zeros_like(left))
    return Spheres(torch.stack(centres), torch.stack(radii))
