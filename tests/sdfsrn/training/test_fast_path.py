"""Speed may not change what is computed: the fast step and picture against the plain ones, on the served model and its data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData, View
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.rendering.silhouettes import pick_minimum, seek_minimum, stratified
from sdfsrn.rendering.views import Camera, minimum_picture
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.plain import CountingRun, Float32Run, PlainRun
from tests.benchmarks.target import on_grids
from tests.sdfsrn.given import pictures_of
from tests.sdfsrn.rendering.plain import dense_minimum

DATA = SyntheticData(n_shapes=6, seed=1_700_000)
SERVED_TOLERANCE = 5e-4  # share of pixels on the other side of the outline
TOLERANCE = 0.009  # scene units: a quarter of a pixel at the object's centre


@pytest.fixture(scope="module")
def model() -> Model:
    return Checkpoint.load(WEIGHTS / "default.safetensors").model(torch.device("cpu"))


@pytest.mark.parametrize("search", [pick_minimum, seek_minimum])
def test_a_search_in_low_precision_finds_nearly_the_same_minima(model: Model, search: Callable[..., Any]) -> None:
    views = synthetic_dataset(DATA).views
    rays_o, rays_d = pixel_rays(views.c2w, views.fovy_deg, views.size)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, 16, torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = encode(model, views)
        sdf = model.sdf(latents)
        _, exact = pick_minimum(sdf, rays_o, rays_d, t)
        picked, _ = search(model.search_sdf(latents, torch.bfloat16), rays_o, rays_d, t)
        excess = (sdf(rays_o + picked[..., None] * rays_d) - exact)[meets]
        between = ((far - near) / 16)[meets]
    assert excess.min() > -1e-6, "no sample lies below the smallest"
    assert excess.quantile(0.999) < TOLERANCE
    within = excess < (2 * TOLERANCE if search is pick_minimum else between)
    assert float(within.float().mean()) >= (1 if search is pick_minimum else 0.999), "a learnt field rises faster in places"
    assert excess.mean() < TOLERANCE / 20


@pytest.mark.slow
def test_a_fit_searched_with_less_is_nearly_the_exact_one(model: Model) -> None:
    views = synthetic_dataset(dataclasses.replace(DATA, n_shapes=24)).views  # of fewer, a few pixels are too large a share
    searches = (None, lambda latents: model.search_sdf(latents, torch.bfloat16), on_grids(model))
    exact, low, gridded = (training_fit(model, views, encode(model, views), 0.01, search) for search in searches)
    assert low == pytest.approx(exact, rel=0.04)
    assert (gridded[0], gridded[2]) == pytest.approx((exact[0], exact[2]), rel=0.05)
    assert abs(gridded[1] - exact[1]) < SERVED_TOLERANCE, "wrong pixels, of all pixels: a better model has fewer of them"
    assert len({exact, low, gridded}) == 3, "each was asked for"


def test_a_fast_step_goes_where_the_one_in_single_precision_goes() -> None:
    """At the start of a training: near its end what is left of a gradient is small beside the rounding of its parts."""
    torch.manual_seed(0)
    fresh = Model(ModelConfig(symmetry="mirror", view_head=True))
    for name, (exact, fast) in _gradients(fresh, (Float32Run, BFloat16Run)).items():
        cosine = torch.nn.functional.cosine_similarity(exact.flatten(), fast.flatten(), dim=0)
        assert cosine > 0.97, f"{name}: {cosine:.4f}"
        assert 0.8 < fast.norm() / exact.norm() < 1.25, name


def test_the_picked_sample_alone_has_the_gradient_of_all_samples_in_the_graph(model: Model) -> None:
    for name, (plain, picked) in _gradients(model, (PlainRun, CountingRun)).items():
        torch.testing.assert_close(picked, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()), msg=name)


def _gradients(model: Model, runs: tuple[type[Run], type[Run]]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of all weights, after one step of both kinds of training."""
    config = SdfSrnConfig(batch_size=6, symmetry=model.config.symmetry, thickness_weight=0.2)
    data, found = synthetic_dataset(DATA), []
    for kind in runs:
        run = kind(config, data, torch.device("cpu"))
        run.model.load_state_dict(run.model.state_dict() | model.state_dict())
        run.optimizers = ()
        run.make_step(torch.arange(6))
        found.append({name: parameter.grad for name, parameter in run.model.named_parameters() if parameter.grad is not None})
    return {name: (value, found[1][name]) for name, value in found[0].items()}


class BFloat16Run(Run):
    """As on a machine that multiplies it natively."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fast_dtype = torch.bfloat16


@pytest.mark.slow
def test_served_silhouettes_are_those_of_the_plain_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that makes serving quick at once, against the served field on dense samples of every ray."""
    monkeypatch.setattr("sdfsrn.reconstruct.fast_dtype", lambda device: torch.bfloat16)
    served, pictures, wrong = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu"), pictures_of(DATA), []
    size = 128
    for i in range(0, len(pictures), 2):
        sdf, grid = served._field(served.look(pictures[i]).latent)
        camera = Camera.on_orbit([View(60.0 * i + 10, 20.0)], 2.5, 50.0, size, served.device)
        exact = dense_minimum(sdf, *camera.rays(), 128).reshape(1, size, size)
        wrong.append(((minimum_picture(sdf, grid, camera) < 0) != (exact < 0)).float().mean())
    assert torch.stack(wrong).max() < SERVED_TOLERANCE
