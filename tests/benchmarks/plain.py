"""The plain recipe: the same networks, data, batches, samples and hit test, but every sample of every ray in the graph, fp32.

`python -m tests.benchmarks.plain` finds the rates at which it, on whole pictures and on as many rays as the recipe takes, is
quickest, counts the epochs that it takes to the target on whole pictures, and writes all of it to results/plain.json, from
where the benchmarks take rates and count: half an hour, once. What the file holds already of the same recipe stays, a rate
added to RATES is tried. The rate of equal rays is sought with plain point picking, which has the same gradients.
"""

import dataclasses
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdfsrn.config import LATER, SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.networks.encoder import encoder_images
from sdfsrn.rendering.silhouettes import pick_minimum
from sdfsrn.training import TrainingCollapsed
from sdfsrn.training.losses import silhouette_entropy
from sdfsrn.training.sdf_srn import Drawn, Run
from tests.benchmarks.machine import DEVICE, RESULTS, commit, machine, prepare
from tests.benchmarks.target import epochs_to_target
from tests.sdfsrn.rendering.plain import plain_minimum

COUNT = RESULTS / "plain.json"
# among which each opponent has the one that is quickest on data that levers are chosen on
RATES = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
CHOSEN_ON = 100
MANY_RAYS = 512  # a picture: at these the plain recipe's rate is chosen, since all of its 3,000 or so take hours


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
    """Whole pictures at every step, every sample of every ray in the graph, fp32, and no loss but the silhouette's.

    It shares its pictures out among threads as the recipe does. Each picture has the rays that meet the unit sphere.
    """

    def _losses(self, drawn: Drawn) -> Tensor:
        minima, inside = self._rendered(self.model.encode(drawn.images), drawn)
        loss = silhouette_entropy(minima, inside, self.config.temperature)
        zero = torch.zeros_like(loss)
        return torch.stack([loss, loss, zero, zero])

    def _images(self, batch: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG002
        return encoder_images(self.views.tiles[batch].to(self.device))  # without jitter, which is slower to learn from

    def _pixels(self, shown: Tensor, reaching: Tensor, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return self.outwards[: int(reaching.max())].sort().values.repeat(len(shown), 1)

    def _rendered(self, latents: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Minima and what is inside; one picture after the other, as each sees the sphere in another number of pixels."""
        _, _, met = unit_sphere_interval(drawn.rays_o, drawn.rays_d)
        minima = [
            self._minima(latents[i : i + 1], *(part[i : i + 1, rows] for part in (drawn.rays_o, drawn.rays_d, drawn.t)))
            for i, rows in enumerate(met)
        ]
        return torch.cat(minima, dim=1), drawn.inside[met][None]

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        return plain_minimum(self.model.sdf(latents), rays_o, rays_d, t)


class EqualRaysRun(PlainRun):
    """The plain recipe on as many random rays as the recipe takes, each of which meets the unit sphere."""

    def _pixels(self, shown: Tensor, reaching: Tensor, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        chosen = [torch.randperm(reached, generator=generator)[:count] for reached in reaching.tolist()]
        return self.outwards[torch.stack(chosen)]

    def _rendered(self, latents: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        return self._minima(latents, drawn.rays_o, drawn.rays_d, drawn.t), drawn.inside


class CountingRun(PlainRun):
    """The gradients of `PlainRun`, quickly enough to count the epochs that it takes: of each ray one sample is in the graph.

    That is the smallest one; what the others get is zero.
    """

    def _minima(self, latents: Tensor, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
        picked, _ = pick_minimum(self.model.search_sdf(latents, torch.float32), rays_o, rays_d, t)
        return self.model.sdf(latents)(rays_o + picked[..., None] * rays_d)


class PickingRun(CountingRun, EqualRaysRun):
    """Plain point picking (DFR) on as many random rays as the recipe takes, with the gradients of `EqualRaysRun`."""


def best_rates(tried: list[dict[str, Any]]) -> dict[str, float]:
    """Opponent -> the rate with the fewest epochs to the target; what is not `tried` yet is, one training per core at a time."""
    rays = {"plain": MANY_RAYS, "picking": SdfSrnConfig().n_rays}
    known = {(trial["opponent"], trial["rate"]) for trial in tried}
    missing: list[dict[str, Any]] = [
        {"opponent": name, "n_rays": count, "rate": rate}
        for name, count in rays.items()
        for rate in RATES
        if (name, rate) not in known
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        for trial, epochs in zip(missing, pool.map(_epochs_to_target, missing), strict=True):
            tried.append(trial | {"epochs": epochs, "commit": commit()})
            print(tried[-1], flush=True)
    of = {name: [trial for trial in tried if trial["opponent"] == name] for name in rays}
    return {name: min(trials, key=lambda trial: trial["epochs"] or math.inf)["rate"] for name, trials in of.items()}


def _epochs_to_target(trial: dict[str, Any]) -> int | None:
    config = SdfSrnConfig(n_rays=trial["n_rays"], learning_rate=trial["rate"], seed=CHOSEN_ON)
    run = PickingRun(config, synthetic_dataset(SyntheticData(seed=CHOSEN_ON)), DEVICE)
    try:
        return epochs_to_target(run)
    except TrainingCollapsed:
        return None


def counted() -> dict[str, Any]:
    """What `main` wrote, or nothing if there is none or the recipe's settings have changed since.

    Where the opponents' own code changes, the file is to be removed.
    """
    found: dict[str, Any] = json.loads(COUNT.read_text()) if COUNT.is_file() else {}
    return found if LATER | found.get("recipe", {}) == dataclasses.asdict(SdfSrnConfig()) else {}


def main() -> None:
    """Choose both rates, and count the plain recipe's epochs."""
    known = counted()
    tried = known.get("tried", [])
    rates = best_rates(tried)
    same = known.get("rates", {}).get("plain") == rates["plain"]
    found = (known if same else _counted_anew(rates["plain"])) | {"rates": rates, "tried": tried}
    COUNT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _counted_anew(rate: float) -> dict[str, Any]:
    recipe = SdfSrnConfig()
    run = CountingRun(dataclasses.replace(recipe, learning_rate=rate), synthetic_dataset(SyntheticData()), DEVICE)
    plain_epochs = epochs_to_target(run, partial(print, flush=True))
    return {"machine": machine(), "commit": commit(), "recipe": dataclasses.asdict(recipe), "plain_epochs": plain_epochs}


if __name__ == "__main__":
    main()
