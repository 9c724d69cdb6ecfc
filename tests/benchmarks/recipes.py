"""Whole trainings of the recipe and its variants, one per core at a time, evaluated as the HTTP contract defines it."""

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.evaluation.protocol import encode, evaluate_model
from sdfsrn.rendering.grids import GridField
from sdfsrn.training import TrainingCollapsed
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import DEVICE, prepare
from tests.benchmarks.target import first_at_target, train_for

T = TypeVar("T")
COUNTED_EPOCHS = 150


@dataclass(frozen=True)
class Variant:
    """One training: the same seed for the data, the weights and the rays unless the configuration says otherwise.

    One that is not to be `measured` is only looked at for empty fields. It is evaluated on its own shapes, or on `unseen` ones.
    """

    name: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    run: Callable[..., Run] = Run
    measured: bool = True
    unseen: SyntheticData | None = None


class CeilingRun(Run):
    """Told the truth: a step sees each object's first picture, but the silhouette of any of its views."""

    def __init__(self, config: SdfSrnConfig, dataset: Dataset, device: torch.device) -> None:
        of_one_view = dataclasses.replace(dataset, views=dataset.first_views, first=tuple(range(len(dataset))))
        super().__init__(config, of_one_view, device)
        distances = torch.linalg.vector_norm(dataset.views.c2w[:, :3, 3], dim=-1)
        first = torch.tensor(dataset.first).repeat_interleave(len(dataset.views) // len(dataset))
        in_one_world = dataset.views.scaled(distances[first] / distances)  # that of the object's first view
        self.told = Run(config, dataclasses.replace(dataset, views=in_one_world), device)

    def _rays(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n_views = len(self.told.views) // len(self.views)
        return self.told._rays(batch * n_views + torch.randint(n_views, (len(batch),), generator=generator), generator)


def train_all(variants: Sequence[Variant]) -> list[dict[str, Any] | None]:
    """Each variant's report, or None where the training collapsed."""
    return _each(variants, _train, _outcome)


def count_all(variants: Sequence[Variant]) -> list[int | None]:
    """The epochs in which each variant reaches the recipe's target, or None where COUNTED_EPOCHS do not suffice."""
    return _each(variants, _count, str)


def by_name(variants: Sequence[Variant], found: Sequence[T]) -> dict[str, list[T]]:
    """What was found of the variants of each name, in the order of both."""
    of: dict[str, list[T]] = {}
    for variant, one in zip(variants, found, strict=True):
        of.setdefault(variant.name, []).append(one)
    return of


def _each(variants: Sequence[Variant], work: Callable[[Variant], T], told: Callable[[T], str]) -> list[T]:
    found: dict[int, T] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=prepare) as pool:
        waiting = {pool.submit(work, variant): i for i, variant in enumerate(variants)}
        for done in as_completed(waiting):
            i = waiting[done]
            found[i] = done.result()
            print(f"  {len(found)}/{len(variants)} {variants[i].name}, seed {variants[i].seed}: {told(found[i])}", flush=True)
    return [found[i] for i in range(len(variants))]


def _outcome(report: dict[str, Any] | None) -> str:
    if report is None:
        return "collapsed"
    return f"{report['novel_view_iou']['mean']:.4f}" if "novel_view_iou" in report else f"{report['n_failures']} empty"


def _begun(variant: Variant) -> Run:
    data = synthetic_dataset(SyntheticData(**{"seed": variant.seed, **variant.data}))
    return variant.run(SdfSrnConfig(**{"seed": variant.seed, **variant.config}), data, DEVICE)


def _count(variant: Variant) -> int | None:
    run = _begun(variant)
    try:
        first = first_at_target(run, train_for(run, epochs=COUNTED_EPOCHS))
    except TrainingCollapsed:
        return None
    return first.epochs if first else None


def _train(variant: Variant) -> dict[str, Any] | None:
    run = _begun(variant)
    try:
        while run.epoch < run.config.epochs:
            run.train_epoch()
            if run.epoch % run.config.checkpoint_every == 0:  # as `train` does: it takes as long as an epoch
                run.watch()
    except TrainingCollapsed:
        return None
    if variant.measured:
        judged = synthetic_dataset(variant.unseen) if variant.unseen else run.dataset
        return evaluate_model(run.averaged, judged, run.config.temperature).report
    latents = encode(run.averaged, run.dataset.first_views)
    fields = (GridField(run.averaged.sdf(latent[None]), device=DEVICE) for latent in latents)
    return {"n_failures": sum(bool((field.values >= 0).all()) for field in fields)}
