"""The plain recipe: the same networks, data, batches, samples and hit test, but every sample of every ray in the graph, fp32.

`python -m tests.benchmarks.plain` counts the epochs that it takes to the target: half an hour, once; speed.py keeps the count.
"""

from typing import Any

import torch
from torch import Tensor

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.rendering.silhouettes import pick_minimum, stratified
from sdfsrn.training.losses import silhouette_loss
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.target import run_to_target
from tests.sdfsrn.rendering.plain import plain_minimum


class AdamRun(Run):
    """Adam for all weights, no Muon."""

    def __init__(self, config: SdfSrnConfig, *args: Any) -> None:
        super().__init__(config, *args)
        adam = torch.optim.Adam(self.model.parameters(), fused=True)
        adam.param_groups[0]["lr_scale"] = 1.0
        self.optimizers = (adam,)


class PlainRun(AdamRun):
    """Whole pictures at every step, and no loss but the silhouette's."""

    def _train_step(self, batch: Tensor, step: int) -> Tensor:
        """One optimiser step."""
        rays_o, rays_d = pixel_rays(self.views.c2w[batch], self.views.fovy_deg, self.views.size)
        meets = unit_sphere_interval(rays_o[:1], rays_d[:1])[2][0]
        rays_o, rays_d, inside = rays_o[:, meets], rays_d[:, meets], self.views.masks[batch].flatten(1)[:, meets]
        latents = self.model.encoder(self.views.pictures(batch))
        near, far, _ = unit_sphere_interval(rays_o, rays_d)
        t = stratified(near, far, self.config.n_samples, self._generator(step, 1))
        loss = silhouette_loss(self._minima(latents, rays_o, rays_d, t), inside, self._temperature(step))
        self._descend(loss, step)
        zero = torch.zeros(())
        return torch.stack([loss.detach(), loss.detach(), zero, zero])

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        return plain_minimum(self.model.sdf(latents), rays_o, rays_d, t)


class CountingRun(PlainRun):
    """The same gradients, of the smallest sample alone: what the others get is zero. Quick enough to count epochs."""

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        picked, _ = pick_minimum(self.model.search_sdf(latents, self.fast_dtype), rays_o, rays_d, t)
        return self.model.sdf(latents)(rays_o + picked[..., None] * rays_d)


class PickingRun(Run):
    """One picked point per random ray (DFR), all in single precision."""

    def __init__(self, config: SdfSrnConfig, *args: Any) -> None:
        super().__init__(config, *args)
        self.fast_dtype = torch.float32


def main() -> None:
    """Count the plain recipe's epochs."""
    print(run_to_target(CountingRun(SdfSrnConfig(), synthetic_dataset(SyntheticData()), torch.device("cpu")), 3600, print))


if __name__ == "__main__":
    main()
