"""What a training leaves for later to tell whether a picture shows an object of its kind."""

import dataclasses
from collections.abc import Callable

import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.familiarity import Familiarity
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor

LEARNT = 2000  # pictures of the training at most whose codes and masks are learnt
ASKED = 200  # pictures of its kind at most that are answered as a user's would be
OTHER_SEED = 1_000_000_007  # apart from the training's


def familiarity(
    checkpoint: Checkpoint, dataset: Dataset, device: torch.device, progress: Callable[[int, int], None] = lambda done, total: None
) -> Familiarity | None:
    """What the checkpoint's kind of object is; None if it answers no picture of its kind."""
    served = Reconstructor(checkpoint, device)
    learnt = dataset.views[torch.arange(0, len(dataset.views), max(1, len(dataset.views) // LEARNT))]
    known = [served.look_at(*one) for one in zip(learnt.tiles, learnt.masks, strict=True) if one[1].any()]
    kind = _others(dataset).first_views
    asked = [one for one in zip(kind.tiles, kind.masks, strict=True) if one[1].any()][:ASKED]
    answered = []
    for i, one in enumerate(asked):
        progress(i, len(asked))
        looked = served.look_at(*one)
        try:
            answered.append((looked.latent, looked.target, served.shape(looked).input_iou))
        except ReconstructionFailed:
            continue
    if not answered:
        return None
    return Familiarity.fit(torch.cat([one.latent for one in known]), torch.stack([one.target for one in known]), answered)


def _others(dataset: Dataset) -> Dataset:
    """Objects of the same kind that were not trained on, where they can be drawn; else those that were."""
    if dataset.shapes is None:
        return dataset
    drawn = SyntheticData(**{**dataset.description, "families": tuple(dataset.description["families"])})
    count = min(ASKED, 2 * drawn.n_shapes)
    other = dataclasses.replace(drawn, n_shapes=count, views_per_shape=1, seed=(drawn.seed + OTHER_SEED) % 2**31)
    return synthetic_dataset(other, dataset.mask_radius)
