"""The renderer with one picked sample per ray against a plain one, a pinhole's exact disc and finite differences."""

import math
import multiprocessing
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.rendering.silhouettes import (
    MISS,
    along,
    evaluate,
    inside_span,
    pick_minimum,
    ray_minimum,
    seek_minimum,
    sharpen,
    soft_silhouette,
    stratified,
)
from tests.sdfsrn.rendering.fields import ball, box, decoder_field
from tests.sdfsrn.rendering.plain import plain_minimum

TEMPERATURE = 0.02


def _rays(size: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    azimuth = torch.arange(batch, dtype=dtype) * 50 + 20
    return pixel_rays(orbit_c2w(azimuth, torch.full_like(azimuth, 15), 2.5), 50.0, size)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_and_gradients_are_the_plain_renderers(seed: int) -> None:
    model, sdf = decoder_field(seed, batch=2)
    rays_o, rays_d = _rays(16, batch=2)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    truth = torch.rand(rays_o.shape[:2]) < 0.5

    fast = ray_minimum(sdf, rays_o, rays_d, 24, torch.Generator().manual_seed(9))
    t = stratified(near, far, 24, torch.Generator().manual_seed(9))
    plain = torch.where(meets, plain_minimum(sdf, rays_o, rays_d, t), MISS)
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)

    gradients = []
    for minima in (fast, plain):
        loss = (soft_silhouette(minima, TEMPERATURE) - truth.float()).square().mean()
        gradients.append(parameters_to_vector(torch.autograd.grad(loss, list(model.decoder.parameters()))))
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_the_span_inside_a_hollow_ball_goes_from_its_front_to_its_back() -> None:
    outer, size, count = 0.6, 15, 400
    rays_o, rays_d = _rays(size)
    near, far, _ = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, count, torch.Generator().manual_seed(4))
    middle = -(rays_o * rays_d).sum(-1)
    half_squared = middle.square() - rays_o.square().sum(-1) + outer**2
    for sdf in (ball(outer), lambda points: torch.maximum(ball(outer)(points), -ball(0.3)(points))):
        ends, met = inside_span(along(sdf, rays_o, rays_d, t), t)
        clear = half_squared.abs() > 1e-3
        assert torch.equal(met[clear], (half_squared > 0)[clear]) and met.any() and not met.all()
        sure = met & clear
        exact = middle[sure][:, None] + half_squared[sure].sqrt()[:, None] * torch.tensor([-1.0, 1.0])
        segment = ((far - near) / count)[sure][:, None]
        assert ((ends[sure] - exact).abs() < 2.001 * segment).all(), "jittered samples lie at most two segments apart"


@pytest.mark.parametrize("radius", [0.3, 0.6])
def test_zero_crossing_is_the_exact_disc_of_a_sphere(radius: float) -> None:
    size = 64
    rays_o, rays_d = _rays(size)
    minima = ray_minimum(ball(radius), rays_o, rays_d, 256).reshape(size, size)
    disc = size / 2 / math.tan(math.radians(25)) * radius / math.sqrt(2.5**2 - radius**2)
    centre = torch.arange(size) + 0.5 - size / 2
    away = torch.hypot(centre[:, None], centre[None])
    clear = (away - disc).abs() > 0.02
    assert ((away < disc) == (minima < 0))[clear].all()


def test_minimum_on_a_ray_is_the_distance_to_the_ray() -> None:
    rays_o, rays_d = _rays(32)
    exact = torch.linalg.cross(rays_o, rays_d).norm(dim=-1)
    minima = ray_minimum(ball(0.5), rays_o, rays_d, 512)
    meets = exact < 1
    torch.testing.assert_close(minima[meets], exact[meets] - 0.5, atol=2e-3, rtol=0)
    assert (minima[exact > 1] == MISS).all()


def test_soft_silhouettes_gradient_is_the_finite_difference() -> None:
    rays_o, rays_d = _rays(12, dtype=torch.float64)

    def coverage(half_edge: torch.Tensor) -> torch.Tensor:
        sdf = lambda points: (points.abs() - half_edge).amax(dim=-1)  # noqa: E731
        return soft_silhouette(ray_minimum(sdf, rays_o, rays_d, 32), 0.05).mean()

    half_edge = torch.tensor([0.41, 0.33, 0.27], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(coverage(half_edge), half_edge)
    step = 1e-6
    with torch.no_grad():
        differences = torch.stack(
            [
                (coverage(half_edge + step * axis) - coverage(half_edge - step * axis)) / (2 * step)
                for axis in torch.eye(3, dtype=torch.float64)
            ]
        )
    assert gradient.min() > 0, "a larger box covers more"
    torch.testing.assert_close(gradient, differences, atol=1e-8, rtol=1e-5)


def test_decoders_gradient_is_the_finite_difference() -> None:
    model, _ = decoder_field(4)
    model.double()
    rays_o, rays_d = _rays(10, dtype=torch.float64)
    latent = torch.linspace(-1, 1, 8, dtype=torch.float64)[None].requires_grad_()

    def coverage(latent: torch.Tensor) -> torch.Tensor:
        return soft_silhouette(ray_minimum(model.sdf(latent), rays_o, rays_d, 16), 0.05).mean()

    (gradient,) = torch.autograd.grad(coverage(latent), latent)
    step = 1e-6 * torch.eye(8, dtype=torch.float64)[:, None]
    with torch.no_grad():
        differences = torch.stack([(coverage(latent + axis) - coverage(latent - axis)) / 2e-6 for axis in step])
    torch.testing.assert_close(gradient[0], differences, atol=1e-8, rtol=1e-4)


def test_each_stratum_has_one_sample_and_each_ray_its_own_jitter() -> None:
    near, far = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    t = stratified(near, far, 10, torch.Generator().manual_seed(0))
    stratum = (t - near[..., None]) / (far - near)[..., None] * 10
    assert (stratum.floor() == torch.arange(10)).all()
    assert (stratum.frac()[0, 0] - stratum.frac()[0, 1]).abs().min() > 1e-5
    middle = stratified(near, far, 10, None)
    torch.testing.assert_close(middle[0, 0], 1.05 + 0.1 * torch.arange(10))


def test_picked_is_the_smallest_sample() -> None:
    rays_o, rays_d = _rays(8)
    near, far, _ = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, 32, torch.Generator().manual_seed(1))
    sdf = box((0.3, 0.4, 0.2))
    t_picked, smallest = pick_minimum(sdf, rays_o, rays_d, t)
    torch.testing.assert_close(smallest, plain_minimum(sdf, rays_o, rays_d, t))
    torch.testing.assert_close(sdf(rays_o + t_picked[..., None] * rays_d), smallest)


@pytest.mark.parametrize("n_samples", [1, 2, 15, 16])
def test_sought_is_all_but_the_smallest_sample(n_samples: int) -> None:
    """Over two bodies, so that rays have two minima: never further off than samples are apart, and seldom off at all."""
    rays_o, rays_d = _rays(24)
    near, far, _ = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, n_samples, torch.Generator().manual_seed(1))
    round_one, flat_one = ball(0.3), box((0.5, 0.1, 0.4))

    def sdf(points: torch.Tensor) -> torch.Tensor:
        return torch.minimum(round_one(points - 0.4), flat_one(points + 0.3))

    t_sought, found = seek_minimum(sdf, rays_o, rays_d, t)
    torch.testing.assert_close(sdf(rays_o + t_sought[..., None] * rays_d), found)
    _, smallest = pick_minimum(sdf, rays_o, rays_d, t)
    excess = found - smallest
    assert excess.min() >= 0 and (excess <= (t.diff().amax(-1) if n_samples > 1 else 0)).all()
    assert (excess == 0).float().mean() > 0.95


def test_evaluation_in_chunks_is_the_evaluation() -> None:
    _, sdf = decoder_field(0, batch=3)
    points = torch.rand(3, 20_000, 3)
    values = evaluate(sdf, points)
    assert not values.requires_grad
    torch.testing.assert_close(values, sdf(points).detach())


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_each_chunk_is_one_threads_and_no_setting_changes() -> None:
    _, sdf = decoder_field(0)
    points = torch.rand(1, 20_000, 3)
    seen: set[tuple[int, int]] = set()

    def watched(part: torch.Tensor) -> torch.Tensor:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.005)  # so that no thread takes all chunks before the other one wakes
        return sdf(part)

    shared = evaluate(watched, points)
    assert {count for _, count in seen} == {1} and 1 < len({thread for thread, _ in seen}) <= 2
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2], "a thread that starts later has the process's count"
    before = threading.active_count()
    evaluate(watched, points)
    assert threading.active_count() == before, "the threads are kept"
    torch.set_num_threads(1)
    assert torch.equal(evaluate(sdf, points), shared), "to the bit"


@pytest.mark.usefixtures("two_threads")
def test_what_a_field_raises_is_raised() -> None:
    def broken(part: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError(f"{part.shape[1]} points")

    with pytest.raises(ZeroDivisionError, match="2048 points"):
        evaluate(broken, torch.rand(1, 10_000, 3))


def _evaluated_in_a_process(pipe: Connection) -> None:
    torch.set_num_threads(2)
    pipe.send(float(evaluate(ball(0.5), torch.ones(1, 10_000, 3)).mean()))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_process_of_ones_own_has_threads_of_its_own(method: str) -> None:
    evaluate(ball(0.5), torch.rand(1, 10_000, 3))
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_evaluated_in_a_process, args=(there,))
    process.start()
    try:
        assert here.poll(60), "it waits for threads that it does not have"
        assert here.recv() == pytest.approx(3**0.5 - 0.5)
    finally:
        process.kill()
        process.join()


def test_a_kink_and_a_smooth_minimum_are_found_wherever_they_lie() -> None:
    """Along rays that start at x = -1: a kink of unlike sides, and a parabola; both begun beside their minima."""
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(400, generator=generator) * 0.04 - 0.02
    rays_o = torch.stack([torch.full((400,), -1.0), place, torch.zeros(400)], dim=-1)
    rays_d = torch.tensor([[1.0, 0.0, 0.0]]).expand(400, 3)
    span = torch.tensor([[0.9, 1.1]]).expand(400, 2)

    def kink(points: torch.Tensor) -> torch.Tensor:
        away = points[..., 0] - points[..., 1]
        return torch.maximum(-0.9 * away, 0.3 * away)

    def smooth(points: torch.Tensor) -> torch.Tensor:
        return 3 * (points[..., 0] - points[..., 1]).square()

    for sdf in (kink, smooth):
        start = torch.ones(400)
        value = sdf(rays_o + start[:, None] * rays_d)
        found = sharpen(sdf, rays_o, rays_d, start, value, span, 0.01, 1.0, 1e-4)
        # where by chance a kink lies as a parabola would it is missed by a little
        assert found.min() >= 0 and found.max() < 1e-3 and (found < 1.2e-4).float().mean() > 0.95


def test_soft_silhouette_is_the_sigmoid() -> None:
    found = soft_silhouette(torch.tensor([-100.0, -0.1, 0.0, 0.1, 100.0]), 0.1)
    expected = torch.tensor([1.0, 1 / (1 + math.exp(-1)), 0.5, 1 / (1 + math.e), 0.0])
    torch.testing.assert_close(found, expected)
