"""Sphere tracing from both ends of a ray, with gradients at the hits.

A step of a ray is the field's value over its steepest slope, so that no surface is passed (Hart 1996), made longer while the
balls that are known to be empty overlap (Keinert et al. 2014). A ray that has not come to an end is sampled instead. What is found
has no graph; where a ray meets the surface, the implicit function theorem gives `t` the gradient that it has (Niemeyer et al.
2020, DVR; Yariv et al. 2020, IDR).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.silhouettes import along, evaluate, first_and_last, points_at, stratified

STEPS = 48  # of a ray from either end, before it is sampled
RELAXATION = 1.5  # times the safe step
SAMPLES = 64  # of a ray that is sampled
BISECTIONS = 20
STEEPEST = 1.05  # times the steepest slope that was measured


@dataclass(frozen=True)
class Crossings:
    """Of each ray the `t` where it enters the surface first and leaves it last, and whether it meets it; without a graph.

    For a ray that misses, both are where it came closest, as far as was seen. `sampled` says which rays had to be sampled.
    """

    entry: Float[Tensor, "batch n"]
    leave: Float[Tensor, "batch n"]
    hit: Bool[Tensor, "batch n"]
    sampled: Bool[Tensor, "batch n"]


def steepest_slope(sdf: Sdf, n_points: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> float:
    """The most that a field was seen to rise per scene unit, at random points of the unit ball, and a little more."""
    points = torch.nn.functional.normalize(torch.randn(1, n_points, 3, generator=generator, dtype=dtype), dim=-1)
    points = points * torch.rand(1, n_points, 1, generator=generator, dtype=dtype).pow(1 / 3)
    leaf = points.requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(sdf(leaf).sum(), leaf)
    return STEEPEST * float(torch.linalg.vector_norm(gradient, dim=-1).max())


@torch.no_grad()
def trace(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    lipschitz: float,
    tolerance: float = 1e-4,
) -> Crossings:
    """Where rays cross the zero level within the unit ball, to `tolerance` of the field's value.

    `lipschitz` is how steep the field is at most (`steepest_slope`); were it steeper, a thin part could be passed.
    """
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    entry = _march(sdf, rays_o, rays_d, near, far, 1.0, lipschitz, tolerance)
    leave = _march(sdf, rays_o, rays_d, near, far, -1.0, lipschitz, tolerance)
    hit = entry.arrived & leave.arrived & meets
    sampled = meets & (entry.is_open | leave.is_open | (entry.arrived != leave.arrived))
    first, last = torch.where(hit, entry.t, entry.closest), torch.where(hit, leave.t, entry.closest)
    if sampled.any():
        found = _sampled(sdf, rays_o[sampled][None], rays_d[sampled][None], near[sampled][None], far[sampled][None])
        first[sampled], last[sampled], hit[sampled] = found[0][0], found[1][0], found[2][0]
    return Crossings(first, last, hit, sampled)


@dataclass(frozen=True)
class _March:
    t: Tensor
    closest: Tensor
    arrived: Tensor
    is_open: Tensor


def _march(
    sdf: Sdf, rays_o: Tensor, rays_d: Tensor, near: Tensor, far: Tensor, sign: float, lipschitz: float, tolerance: float
) -> _March:
    """Rays from their entry to the ball forwards, or from their exit backwards."""
    t = (near if sign > 0 else far).clone()
    smallest, closest = torch.full_like(t, torch.inf), t.clone()
    arrived, is_open = torch.zeros_like(t, dtype=torch.bool), far > near
    before, step = torch.zeros_like(t), torch.zeros_like(t)
    relaxation = torch.full_like(t, RELAXATION)
    for _ in range(STEPS):
        if not is_open.any():
            break
        value = torch.zeros_like(t)
        value[is_open] = evaluate(sdf, (rays_o[is_open] + t[is_open][:, None] * rays_d[is_open])[None])[0]
        radius = value / lipschitz
        # two empty balls that do not meet: something may lie between them, so this step is taken back
        overshot = is_open & (relaxation > 1) & ((before + radius < step) | (value < 0))
        t = torch.where(overshot, t - sign * (step - before), t)
        relaxation = torch.where(overshot, 1.0, relaxation)
        is_lower = is_open & ~overshot & (value < smallest)
        smallest, closest = torch.where(is_lower, value, smallest), torch.where(is_lower, t, closest)
        arrived |= is_open & ~overshot & (value < tolerance)
        going = is_open & ~overshot & ~arrived
        before = torch.where(overshot, 0.0, torch.where(going, radius, before))
        step = torch.where(overshot, 0.0, torch.where(going, radius * relaxation, step))
        t = torch.where(going, t + sign * step, t)
        is_open = is_open & ~arrived & ((t < far) if sign > 0 else (t > near))
    return _March(t, closest, arrived, is_open)


def _sampled(sdf: Sdf, rays_o: Tensor, rays_d: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.cat([near[..., None], stratified(near, far, SAMPLES, None), far[..., None]], dim=-1)
    values = along(sdf, rays_o, rays_d, t)
    inside = values < 0
    hit = inside.any(-1)
    ends = first_and_last(inside)
    lowest = t.gather(-1, values.argmin(-1, keepdim=True))[..., 0]
    beyond = torch.stack([(ends[..., 0] - 1).clamp(min=0), (ends[..., 1] + 1).clamp(max=t.shape[-1] - 1)], dim=-1)
    outer, inner = t.gather(-1, beyond), t.gather(-1, ends)
    for _ in range(BISECTIONS):
        middle = (outer + inner) / 2
        is_inside = evaluate(sdf, points_at(rays_o, rays_d, middle).flatten(1, 2)).view(middle.shape) < 0
        outer, inner = torch.where(is_inside, outer, middle), torch.where(is_inside, middle, inner)
    return torch.where(hit, inner[..., 0], lowest), torch.where(hit, inner[..., 1], lowest), hit


def differentiable_t(
    sdf: Sdf, rays_o: Float[Tensor, "batch n 3"], rays_d: Float[Tensor, "batch n 3"], t: Float[Tensor, "batch n"]
) -> Float[Tensor, "batch n"]:
    """The `t` of rays that cross the surface there, with its gradient in whatever `sdf` and the rays depend on.

    From f(o + t d) = 0: dt = -df / (grad f . d). A ray that only touches the surface has no such gradient; its slope is kept
    from 0. The value is one Newton step nearer to the surface than `t`.
    """
    t = t.detach()
    points = rays_o + t[..., None] * rays_d
    values = sdf(points)
    slope = (_gradient(sdf, points.detach(), create_graph=False) * rays_d.detach()).sum(-1)
    safe = torch.where(slope.abs() < 1e-3, torch.copysign(torch.full_like(slope, 1e-3), slope), slope)
    return t - values / safe


def differentiable_normals(sdf: Sdf, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """The field's unit gradient, differentiable in whatever `sdf` and the points depend on."""
    return torch.nn.functional.normalize(_gradient(sdf, points, create_graph=True), dim=-1)


def _gradient(sdf: Sdf, points: Tensor, create_graph: bool) -> Tensor:
    with torch.enable_grad():
        leaf = points if points.requires_grad else points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(sdf(leaf).sum(), leaf, create_graph=create_graph)
    return gradient
