"""How good: silhouettes at angles that no view showed, for the recipe, the default model, and real pictures."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.cli import UNSEEN_DATA
from sdfsrn.config import WEIGHTS, ReconstructionConfig, SdfSrnConfig, SyntheticData
from sdfsrn.data.synthetic import families_of, make_views
from sdfsrn.evaluation.protocol import evaluate_model
from sdfsrn.images import read_picture
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.training.sdf_srn import train


def recipe_quality(seeds: range) -> dict[str, Any]:
    """The published recipe on the data sets that no lever was chosen on: mean over seeds, and each family's."""
    reports = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            reports.append(train(SdfSrnConfig(seed=seed), SyntheticData(seed=seed), Path(folder)))
    novel = [report["novel_view_iou"] for report in reports]
    return {
        "novel_iou_recipe": float(np.mean([each["mean"] for each in novel])),
        "novel_iou_recipe_spread": float(np.ptp([each["mean"] for each in novel])),
        **{f"novel_iou_recipe_{name}": float(np.mean([each[name] for each in novel])) for name in ("sphere", "box", "ellipsoid")},
        "recipe_silhouette_loss": float(np.mean([each["silhouette_loss"] for each in reports])),
        "recipe_wrong_pixels": float(np.mean([each["wrong_pixels"] for each in reports])),
        "collapses": sum(each["n_failures"] > 0 for each in reports),
        "collapse_seeds": len(reports),
    }


def default_quality(n_shapes: int) -> dict[str, Any]:
    """The served model on shapes that it never saw."""
    data = dataclasses.replace(UNSEEN_DATA, n_shapes=n_shapes)
    shapes, views = make_views(data)
    checkpoint = Checkpoint.load(WEIGHTS / "default.safetensors")
    model = checkpoint.model(torch.device("cpu"))
    report = evaluate_model(model, shapes, families_of(data), views, checkpoint.temperature).report
    return {"novel_iou_default": report["novel_view_iou"]["mean"], "iou_3d_default": report["iou_3d"], "default_shapes": n_shapes}


def photo_quality(folder: Path) -> dict[str, Any]:
    """IoU of real pictures' own masks, refined for fifty steps, the view estimated."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu")
    config = ReconstructionConfig(size=64, refine_steps=50)
    ious = []
    for path in sorted(folder.glob("*.png")):
        with tempfile.TemporaryDirectory() as out:
            ious.append(served.run(read_picture(path.read_bytes()), config, Path(out))["input_iou"])
    return {"photo_input_iou": float(np.mean(ious)) if ious else None, "photos": len(ious)}
