"""Signed distance fields with known truth, and an untrained decoder's."""

import torch
from torch import Tensor

from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.rendering import Sdf


def ball(radius: float) -> Sdf:
    """A ball at the origin."""
    return lambda points: points.norm(dim=-1) - radius


def box(half_edges: tuple[float, float, float]) -> Sdf:
    """An axis-aligned box at the origin, exact distance."""

    def field(points: Tensor) -> Tensor:
        beyond = points.abs() - torch.tensor(half_edges, dtype=points.dtype)
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(dim=-1).clamp(max=0)

    return field


def torus(ring: float, tube: float) -> Sdf:
    """A torus around the y axis, exact distance."""
    return lambda points: torch.hypot(torch.hypot(points[..., 0], points[..., 2]) - ring, points[..., 1]) - tube


def capsule(start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Sdf:
    """All within `radius` of a segment, exact distance."""

    def field(points: Tensor) -> Tensor:
        first, way = torch.tensor(start, dtype=points.dtype), torch.tensor(end, dtype=points.dtype)
        way = way - first
        share = ((points - first) @ way / way.square().sum()).clamp(0, 1)
        return (points - first - share[..., None] * way).norm(dim=-1) - radius

    return field


def times(sdf: Sdf, factor: float) -> Sdf:
    """The same shape by a field that is no distance: it rises by `factor` per scene unit."""
    return lambda points: factor * sdf(points)


def decoder_field(seed: int, batch: int = 1) -> tuple[Model, Sdf]:
    """A real decoder, pushed off its first sphere so that its surface has folds."""
    torch.manual_seed(seed)
    model = Model(ModelConfig(latent_dim=8, hidden_dim=32))
    with torch.no_grad():
        model.decoder.point_skip.weight.normal_(0.0, 0.05)
    return model, model.sdf(torch.randn(batch, 8))
