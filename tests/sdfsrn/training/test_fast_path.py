"""Speed may not change what is computed: the fast step against the plain one, on the served model and its data."""

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.networks.model import Model
from sdfsrn.rendering.silhouettes import pick_minimum, stratified
from sdfsrn.training.sdf_srn import Run

DATA = SyntheticData(n_shapes=6, seed=1_700_000)
TOLERANCE = 0.009  # scene units: a quarter of a pixel at the object's centre


@pytest.fixture(scope="module")
def model() -> Model:
    return Checkpoint.load(WEIGHTS / "default.safetensors").model(torch.device("cpu"))


def test_a_search_in_low_precision_finds_nearly_the_same_minima(model: Model) -> None:
    views = synthetic_dataset(DATA).views
    rays_o, rays_d = pixel_rays(views.c2w, views.fovy_deg, views.size)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, 16, torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = model.encoder(views.pictures())
        sdf = model.sdf(latents)
        _, exact = pick_minimum(sdf, rays_o, rays_d, t)
        picked, _ = pick_minimum(model.search_sdf(latents, torch.bfloat16), rays_o, rays_d, t)
        excess = (sdf(rays_o + picked[..., None] * rays_d) - exact)[meets]
    assert excess.min() > -1e-6, "no sample lies below the smallest"
    assert excess.quantile(0.999) < TOLERANCE
    assert excess.max() < 2 * TOLERANCE
    assert excess.mean() < TOLERANCE / 20


def test_a_fast_step_goes_where_the_plain_one_goes(model: Model) -> None:
    """The gradient of all weights, with everything fast and with everything in single precision."""
    data, config = synthetic_dataset(DATA), SdfSrnConfig(batch_size=6, hidden_dim=128)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        run = Run(config, data, torch.device("cpu"))
        run.model.load_state_dict(model.state_dict())
        run.fast_dtype = dtype
        run.optimizers = ()
        run._train_step(torch.arange(6), 0)
        gradients.append({name: parameter.grad.clone() for name, parameter in run.model.named_parameters()})  # type: ignore[union-attr]
    for name, plain in gradients[0].items():
        fast = gradients[1][name]
        cosine = torch.nn.functional.cosine_similarity(plain.flatten(), fast.flatten(), dim=0)
        assert cosine > 0.97, f"{name}: {cosine:.4f}"
        assert 0.7 < fast.norm() / plain.norm() < 1.4, name
