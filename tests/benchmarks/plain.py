"""The plain recipe: the same networks, data, batches, samples and hit test, but every sample of every ray in the graph, fp32.

`python -m tests.benchmarks.plain` counts the epochs that it takes to the target, trains on to the end, and writes what came
of it to results/plain.json, from where the benchmarks take the count: half an hour, once.
"""

import json
from typing import Any

import torch
from torch import Tensor

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.protocol import evaluate_model
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.rendering.silhouettes import pick_minimum, stratified
from sdfsrn.training.losses import silhouette_loss
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import DEVICE, RESULTS, commit, machine
from tests.benchmarks.target import run_to_target
from tests.sdfsrn.rendering.plain import plain_minimum

COUNT = RESULTS / "plain.json"
# Of 1e-3, 2e-3 and the recipe's 2.8e-3 the one nearest to the target after 20 epochs of data seed 100 (0.0098, 0.0125, 0.0123).
PLAIN_RATE = 1e-3


class Float32Run(Run):
    """Search and encoder in single precision too."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fast_dtype = torch.float32


class AdamRun(Run):
    """Adam for all weights, no Muon."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        adam = torch.optim.Adam(self.model.parameters(), fused=True)
        adam.param_groups[0]["lr_scale"] = 1.0
        self.optimizers = (adam,)


class PlainRun(AdamRun):
    """Whole pictures at every step, and no loss but the silhouette's."""

    def _train_step(self, batch: Tensor, step: int) -> Tensor:
        """One optimiser step."""
        generator = self._generator(step, 1)
        rays_o, rays_d = pixel_rays(self.views.c2w[batch], self.views.fovy_deg, self.views.size)
        index = self._chosen(unit_sphere_interval(rays_o[:1], rays_d[:1])[2][0].nonzero()[:, 0], generator)
        inside = self.views.masks[batch].flatten(1)[:, index].to(self.device)
        rays_o, rays_d = rays_o[:, index].to(self.device), rays_d[:, index].to(self.device)
        latents = self.model.encoder(self.views.pictures(batch).to(self.device))
        near, far, _ = unit_sphere_interval(rays_o, rays_d)
        t = stratified(near, far, self.config.n_samples, generator)
        loss = silhouette_loss(self._minima(latents, rays_o, rays_d, t), inside, self._temperature(step))
        self._descend(loss, step)
        zero = torch.zeros(())
        return torch.stack([loss.detach().cpu(), loss.detach().cpu(), zero, zero])

    def _chosen(self, pixels: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return pixels

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        return plain_minimum(self.model.sdf(latents), rays_o, rays_d, t)


class CountingRun(PlainRun):
    """The same gradients, of the smallest sample alone: what the others get is zero. Quick enough to count epochs."""

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        picked, _ = pick_minimum(self.model.search_sdf(latents, torch.float32), rays_o, rays_d, t)
        return self.model.sdf(latents)(rays_o + picked[..., None] * rays_d)


class PickingRun(CountingRun):
    """Plain point picking (DFR): as many random rays as the recipe takes, one picked point each."""

    def _chosen(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return pixels[torch.randperm(len(pixels), generator=generator)[: self.config.n_rays]]


def main() -> None:
    """Count the plain recipe's epochs, and measure where it ends."""
    data, config = synthetic_dataset(SyntheticData()), SdfSrnConfig(learning_rate=PLAIN_RATE)
    run = CountingRun(config, data, DEVICE)
    reached = run_to_target(run, float("inf"), print)["reached"]
    while run.epoch < config.epochs:
        run.train_epoch()
    report = evaluate_model(run.averaged, data, config.temperature).report
    found = {
        "machine": machine(),
        "commit": commit(),
        "plain_epochs": reached["epochs"] if reached else None,
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "evaluation": report,
    }
    COUNT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
