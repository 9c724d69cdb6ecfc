"""A checkpoint measured on shapes of known truth, beside others and beside answers that need no training."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import families_of, make_views
from sdfsrn.device import pick_device
from sdfsrn.evaluation.baselines import baselines
from sdfsrn.evaluation.figures import novel_views_figure
from sdfsrn.evaluation.protocol import Evaluation, Progress, evaluate_model

# what, done, total
NamedProgress = Callable[[str, int, int], None]


def evaluate_checkpoint(checkpoint: Checkpoint, data: SyntheticData, progress: Progress = lambda done, total: None) -> Evaluation:
    """`evaluate_model` on the shapes of `data`."""
    shapes, views = make_views(data)
    return evaluate_model(checkpoint.model(pick_device()), shapes, families_of(data), views, checkpoint.temperature, progress)


def compare_checkpoints(
    paths: list[Path], data: SyntheticData, folder: Path, progress: NamedProgress = lambda what, done, total: None
) -> dict[str, dict[str, Any]]:
    """Name -> report: each checkpoint's, by its path, then each baseline's, of which only `novel_view_iou` is known.

    Leaves all of it as evaluation.json and the first checkpoint's pictures as novel_views.png in `folder`. The baselines that
    look at training shapes look at the first checkpoint's. Raises ValueError for a file that is no checkpoint.
    """
    checkpoints = [Checkpoint.load(path) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        evaluation = evaluate_checkpoint(checkpoint, data, partial(progress, path.name))
        if not found:
            novel_views_figure(evaluation.novel_truth, evaluation.novel_prediction, families_of(data), folder / "novel_views.png")
        found[str(path)] = evaluation.report
    found |= _baselines(checkpoints[0], data, progress)
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1))
    return found


def _baselines(checkpoint: Checkpoint, data: SyntheticData, progress: NamedProgress) -> dict[str, dict[str, Any]]:
    progress("training shapes", 0, 1)
    known = SyntheticData(**{**checkpoint.data, "families": tuple(checkpoint.data["families"])})
    shapes, views = make_views(data)
    known_shapes, known_views = make_views(known)
    rows = baselines(
        checkpoint.model(pick_device()),
        (known_shapes, known_views[:: known.views_per_shape]),
        shapes,
        families_of(data),
        views[:: data.views_per_shape],
        partial(progress, "baselines"),
    )
    return {name: {"novel_view_iou": summary} for name, summary in rows.items()}
