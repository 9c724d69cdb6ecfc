"""Soft silhouettes with one differentiable sample per ray.

After DFR (Wu & Sun 2020): rays are tested against the unit sphere, sampled in strata of which each ray and stratum has its own
jitter (eq. 2), samples are evaluated without a graph, and one picked sample per ray again with it (eq. 3-5). Picked is the
minimum, for hit and miss alike, so that what is rendered is the silhouette of Mini SDF-SRN, sigmoid(-min_sdf / temperature).
"""

import functools

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.rendering import Sdf
from sdfsrn.threads import share_out

# Points evaluated at once without a graph on a CPU: few enough for the activations to stay in a core's cache. A field that likes
# another number has it as its `points_at_once`.
CHUNK = 2_048
SAMPLES_AT_ONCE = 131_072  # along rays: what is in memory
SHARPENINGS = 24  # of one minimum at most: an edge takes a handful, a smooth minimum one or none

# The signed distance of rays that miss the unit sphere: far outside at any temperature in use.
MISS = 1.0


def evaluate(sdf: Sdf, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """The field without a graph; on a CPU in chunks, each by one thread from its first layer to its last.

    Were threads to share each small operation, all would wait for one another in it, on a busy machine for a thread that is not
    even running.
    """
    ask = functools.partial(_without_graph, sdf)
    if points.device.type != "cpu":
        return ask(points)
    step = max(1, getattr(sdf, "points_at_once", CHUNK) // points.shape[0])
    return torch.cat(share_out(ask, points.split(step, dim=1)), dim=1)


def _without_graph(sdf: Sdf, points: Tensor) -> Tensor:
    with torch.no_grad():  # holds for one thread
        return sdf(points)


def stratified(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"], n_samples: int, generator: torch.Generator | None
) -> Float[Tensor, "*rays n_samples"]:
    """One `t` in each of `n_samples` equal segments, near to far; jittered with a generator (a CPU one), else at mid-segment."""
    if generator is None:
        offset = torch.full((1,), 0.5, device=near.device)
    else:
        offset = torch.rand(*near.shape, n_samples, generator=generator).to(near.device)
    fraction = (torch.arange(n_samples, device=near.device) + offset) / n_samples
    return near[..., None] + (far - near)[..., None] * fraction


def points_at(
    rays_o: Float[Tensor, "*rays 3"], rays_d: Float[Tensor, "*rays 3"], t: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples 3"]:
    """Where samples of rays lie."""
    return rays_o[..., None, :] + t[..., None] * rays_d[..., None, :]


def along(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> Float[Tensor, "batch n samples"]:
    """The field at samples of rays, without a graph; at no time are all points in memory."""
    at_once = max(1, SAMPLES_AT_ONCE // (t.shape[0] * t.shape[2]))  # rays of each picture: their samples are a few dozen chunks
    parts = zip(*(each.split(at_once, 1) for each in (rays_o, rays_d, t)), strict=True)
    return torch.cat([evaluate(sdf, points_at(*part).flatten(1, 2)).view(part[2].shape) for part in parts], dim=1)


def lowest(
    values: Float[Tensor, "batch n samples"], t: Float[Tensor, "batch n samples"]
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """The `t` of each ray's smallest sample and the value there."""
    smallest, index = values.min(dim=-1)
    return t.gather(-1, index[..., None])[..., 0], smallest


def pick_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """`lowest` of the field `along` rays."""
    return lowest(along(sdf, rays_o, rays_d, t), t)


def seek_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """`pick_minimum` from little more than half of the samples: every second one, and the two beside the smallest of these.

    For where either of two nearly equal minima will do: a true distance changes no faster than its ray goes on, so what is
    skipped is smaller by less than the way from one sample to the next. `t` rises along a ray.
    """
    coarse = along(sdf, rays_o, rays_d, t[..., ::2])
    middle = 2 * coarse.argmin(dim=-1, keepdim=True)
    beside = torch.cat([(middle - 1).clamp(min=0), (middle + 1).clamp(max=t.shape[-1] - 1)], dim=-1)
    t_beside = t.gather(-1, beside)
    values = torch.cat([coarse.amin(dim=-1, keepdim=True), along(sdf, rays_o, rays_d, t_beside)], dim=-1)
    return lowest(values, torch.cat([t.gather(-1, middle), t_beside], dim=-1))


def brackets(
    values: Float[Tensor, "batch n samples"], ceiling: Float[Tensor, "batch n"]
) -> tuple[Int64[Tensor, " found"], Int64[Tensor, " found"]]:
    """Where rays may have their minima: the samples below `ceiling` that are no larger than their neighbours.

    Per sample the place of its ray among all rays, and its own on the ray. A ray has none, one or several.
    """
    padded = torch.nn.functional.pad(values, (1, 1), value=torch.inf)
    is_low = (values <= padded[..., :-2]) & (values < padded[..., 2:]) & (values < ceiling[..., None])
    ray, sample = is_low.flatten(0, 1).nonzero().unbind(-1)
    return ray, sample


def sharpen(
    sdf: Sdf,
    rays_o: Float[Tensor, "n 3"],
    rays_d: Float[Tensor, "n 3"],
    t: Float[Tensor, " n"],
    value: Float[Tensor, " n"],
    span: Float[Tensor, "n 2"],
    step: float,
    lipschitz: float,
    tolerance: float,
) -> Float[Tensor, " n"]:
    """The field's minimum on each ray within its `span`, where the field is convex along the ray.

    It is right to about `tolerance` where it is 0, and a tenth of itself less so elsewhere.

    It is sought around `t`, where the field is `value`, with a `step` to either side at first. Of three places the middle one
    is the lowest, or the field is asked further out. Then it is asked where a parabola through the three is lowest; where it
    is as the parabola says, it is smooth, and that was its minimum. Where it is not, there is an edge, and more to ask.
    """
    ends = torch.stack([torch.maximum(t - step, span[:, 0]), torch.minimum(t + step, span[:, 1])], dim=-1)
    at_ends = evaluate(sdf, points_at(rays_o, rays_d, ends).view(1, -1, 3)).view(ends.shape)
    t = torch.stack([ends[:, 0], t, ends[:, 1]], dim=-1)
    values = torch.stack([at_ends[:, 0], value, at_ends[:, 1]], dim=-1)
    least = values.amin(-1)
    active = torch.arange(len(t), device=t.device)
    for _ in range(SHARPENINGS):
        place, expected, gain = _next_place(t, values, span[active], lipschitz)
        is_open = gain > tolerance + values.amin(-1).abs() / 10
        active, t, values, place, expected = (each[is_open] for each in (active, t, values, place, expected))
        if not len(active):
            break
        value = evaluate(sdf, (rays_o[active] + place[:, None] * rays_d[active])[None])[0]
        least[active] = torch.minimum(least[active], value)
        t, order = torch.cat([t, place[:, None]], dim=-1).sort(dim=-1)
        values = torch.cat([values, value[:, None]], dim=-1).gather(-1, order)
        # to go on with: the lowest and its neighbours
        kept = (values.argmin(-1, keepdim=True) - 1).clamp(0, 1) + torch.arange(3, device=t.device)
        is_edge = ~((value - expected).abs() < tolerance / 8)
        active, t, values = active[is_edge], t.gather(-1, kept)[is_edge], values.gather(-1, kept)[is_edge]
    return least


def _next_place(
    t: Float[Tensor, "n 3"], values: Float[Tensor, "n 3"], span: Float[Tensor, "n 2"], lipschitz: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Where to ask next, the value expected there (NaN: none), and how much lower than the middle the field may be at most.

    Where the three are evenly spread, it is where a parabola through them is lowest. Else it is where an edge would be:
    between the middle and an end a convex field lies above the line through the middle and the other end, and above the line
    that falls from the end as steeply as `lipschitz` allows: where these lines meet is the least that it can be.
    """
    width = t.diff(dim=-1)
    rise = (values[:, [0, 2]] - values[:, 1:2]) / width.clamp(min=1e-9)  # from the middle to either end
    other = rise.flip(-1).clamp(min=0)
    way = torch.minimum(((lipschitz - rise) * width).clamp(min=0) / (lipschitz + other), width)
    gain, side = (other * way).max(dim=-1)
    sign = 2 * side - 1
    of_side = side[:, None]
    sum_of_rises = rise.sum(-1).clamp(min=1e-12)
    bend = sum_of_rises / width.sum(-1)
    turn = (rise[:, 0] * width[:, 1] - rise[:, 1] * width[:, 0]) / (2 * sum_of_rises)  # to where the parabola is lowest
    # what is asked too near to the middle would tell nothing
    least = width.gather(-1, of_side)[:, 0] / 4
    on_parabola = torch.where(turn.abs() < least, sign * least, turn)
    is_even = width.amax(-1) < 3 * width.amin(-1)  # else the parabola of an edge is lowest far from it
    on_lines = sign * torch.minimum(way, width / 2).gather(-1, of_side)[:, 0]
    step = torch.where(is_even, on_parabola, on_lines)
    place = t[:, 1] + step
    expected = torch.where(is_even, values[:, 1] + bend * (step - 2 * turn) * step, torch.nan)

    lowest = values.argmin(-1)
    before = torch.maximum(t[:, 0] - 2 * width[:, 0], span[:, 0])
    behind = torch.minimum(t[:, 2] + 2 * width[:, 1], span[:, 1])
    beyond = torch.where(lowest == 0, before, behind)
    is_moved = (lowest != 1) & ((beyond < t[:, 0]) | (beyond > t[:, 2]))
    return (
        torch.where(is_moved, beyond, place),
        torch.where(is_moved, torch.nan, expected),
        torch.where(is_moved, torch.inf, gain),
    )


def inside_span(
    values: Float[Tensor, "batch n samples"], t: Float[Tensor, "batch n samples"]
) -> tuple[Float[Tensor, "batch n 2"], Bool[Tensor, "batch n"]]:
    """The `t` of each ray's first and last sample inside, and whether it has any; `t` rises along a ray."""
    inside = values < 0
    return t.gather(-1, first_and_last(inside)), inside.any(dim=-1)


def first_and_last(chosen: Bool[Tensor, "batch n samples"]) -> Int64[Tensor, "batch n 2"]:
    """The places of each ray's first and last chosen sample; of a ray that has none, all of it."""
    marks = chosen.to(torch.uint8)
    return torch.stack([marks.argmax(-1), chosen.shape[-1] - 1 - marks.flip(-1).argmax(-1)], dim=-1)


def ray_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    n_samples: int,
    generator: torch.Generator | None = None,
    search: Sdf | None = None,
) -> Float[Tensor, "batch n"]:
    """The smallest signed distance among each ray's samples, differentiable in whatever `sdf` depends on (not in the rays).

    `search`, a cheaper version of `sdf`, picks the samples in its stead; the values returned are always those of `sdf`.
    A ray that misses the unit sphere meets nothing and gets the constant MISS.
    """
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, n_samples, generator)
    reached = meets.any(dim=0)  # whole pictures have corners that look past the sphere
    rays_o, rays_d = rays_o[:, reached], rays_d[:, reached]
    t_picked, _ = pick_minimum(search or sdf, rays_o, rays_d, t[:, reached])
    picked = sdf(rays_o + t_picked[..., None] * rays_d)
    minima = torch.full(meets.shape, MISS, dtype=picked.dtype, device=picked.device)
    minima[:, reached] = picked
    return torch.where(meets, minima, MISS)


def soft_silhouette(min_sdf: Float[Tensor, "..."], temperature: float) -> Float[Tensor, "..."]:
    """Mini SDF-SRN's soft silhouette, in [0, 1]: sigmoid(-min_sdf / temperature)."""
    return torch.sigmoid(-min_sdf / temperature)
