"""A checkpoint measured on shapes of known truth, beside others and beside answers that need no training."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.device import pick_device
from sdfsrn.evaluation.baselines import baselines
from sdfsrn.evaluation.figures import novel_views_figure
from sdfsrn.evaluation.protocol import Evaluation, Progress, evaluate_model
from sdfsrn.images import TILE_RADIUS

# what, done, total
NamedProgress = Callable[[str, int, int], None]


def evaluate_checkpoint(checkpoint: Checkpoint, dataset: Dataset, progress: Progress = lambda done, total: None) -> Evaluation:
    """`evaluate_model` of a checkpoint's networks at its temperature, on tiles as it has learnt to see them."""
    radius = checkpoint.tile_radius or checkpoint.mask_radius
    if radius != TILE_RADIUS:
        dataset = dataclasses.replace(dataset, views=dataset.views.seen_at(radius))
    return evaluate_model(checkpoint.model(pick_device()), dataset, checkpoint.temperature, progress)


def compare_checkpoints(
    paths: list[Path], data: SyntheticData, folder: Path, progress: NamedProgress = lambda what, done, total: None
) -> dict[str, dict[str, Any]]:
    """Name -> report: each checkpoint's, by its path, then each baseline's, of which only `novel_view_iou` is known.

    Leaves all of it as evaluation.json and the first checkpoint's pictures as novel_views.png in `folder`. The baselines that
    look at training shapes look at the first checkpoint's, if those were synthetic. Raises ValueError for a file that is no
    checkpoint.
    """
    checkpoints = [Checkpoint.load(path) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        dataset = synthetic_dataset(data, checkpoint.mask_radius)
        evaluation = evaluate_checkpoint(checkpoint, dataset, partial(progress, path.name))
        if not found:
            novel_views_figure(evaluation.novel_truth, evaluation.novel_prediction, dataset.names, folder / "novel_views.png")
        found[str(path)] = evaluation.report
    progress("training shapes", 0, 1)
    dataset = synthetic_dataset(data, checkpoints[0].mask_radius)
    rows = baselines(checkpoints[0].model(pick_device()), _trained_on(checkpoints[0]), dataset, partial(progress, "baselines"))
    found |= {name: {"novel_view_iou": summary} for name, summary in rows.items()}
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1))
    return found


def _trained_on(checkpoint: Checkpoint) -> Dataset | None:
    """The shapes that a checkpoint was trained on, if they can be drawn again."""
    known = {name: value for name, value in checkpoint.data.items() if name != "type"}
    if set(known) != {spec.name for spec in dataclasses.fields(SyntheticData)}:
        return None
    data = SyntheticData(**{**known, "families": tuple(known["families"])})
    return synthetic_dataset(data, checkpoint.mask_radius)
