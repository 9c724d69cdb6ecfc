"""What a training leaves for later to tell whether a picture shows an object of its kind."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.data.views import TrainingViews
from sdfsrn.familiarity import Familiarity
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor

LEARNT = 2000  # pictures of the training at most whose codes and masks are learnt
ASKED = 200  # pictures of its kind at most that are answered as a user's would be
LEAST_ASKED = 34  # of fewer, one alone is a larger share than is called unfamiliar
APART = 5  # of pictures of which no others can be had, one in so many is not learnt but asked
OTHER_SEED = 1_000_000_007  # apart from the training's


def familiarity(
    checkpoint: Checkpoint, dataset: Dataset, device: torch.device, progress: Callable[[int, int], None] = lambda done, total: None
) -> Familiarity | None:
    """What the checkpoint's kind of object is; None if too few pictures of it are there, or answered, to tell."""
    learnt, kind = _apart(dataset)
    if len(kind) < LEAST_ASKED:
        return None
    served = Reconstructor(checkpoint, device)
    answered = []
    for i, one in enumerate(zip(kind.tiles, kind.masks, strict=True)):
        progress(i, len(kind))
        looked = served.look_at(*one)
        try:
            answered.append((looked.latent, looked.target, served.shape(looked).input_iou))
        except ReconstructionFailed:
            continue
    if len(answered) < LEAST_ASKED:
        return None
    known = [served.look_at(*one) for one in zip(learnt.tiles, learnt.masks, strict=True)]
    return Familiarity.fit(torch.cat([one.latent for one in known]), torch.stack([one.target for one in known]), answered)


def _apart(dataset: Dataset) -> tuple[TrainingViews, TrainingViews]:
    """Pictures to learn the kind from, and others of the same kind: new ones where they can be drawn, else a fifth of all."""
    views = dataset.views[dataset.views.masks.flatten(1).any(dim=1).nonzero()[:, 0]]
    places = torch.arange(len(views))
    if dataset.shapes is not None:
        drawn = SyntheticData(**{**dataset.description, "families": tuple(dataset.description["families"])})
        count = min(ASKED, 2 * drawn.n_shapes)
        other = dataclasses.replace(drawn, n_shapes=count, views_per_shape=1, seed=(drawn.seed + OTHER_SEED) % 2**31)
        kind = synthetic_dataset(other, dataset.mask_radius).views if count >= LEAST_ASKED else views[:0]
        return views[_some(places, LEARNT)], kind
    is_apart = places % APART == 0
    return views[_some(places[~is_apart], LEARNT)], views[_some(places[is_apart], ASKED)]


def _some(places: Tensor, most: int) -> Tensor:
    """At most so many, evenly picked."""
    return places[:: max(1, -(-len(places) // most))]
