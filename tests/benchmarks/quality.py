"""How good: silhouettes at angles that no view showed, for the recipe, the default model, and real pictures."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.cli.local import DEFAULT_DATA, UNSEEN_DATA
from sdfsrn.config import WEIGHTS, ReconstructionConfig
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.baselines import baselines
from sdfsrn.evaluation.metrics import iou
from sdfsrn.evaluation.protocol import evaluate_model, novel_prediction, novel_truth
from sdfsrn.images import Picture, read_picture
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor
from tests.benchmarks.machine import DEVICE
from tests.benchmarks.plain import counted
from tests.benchmarks.recipes import CeilingRun, Variant, by_name, train_all
from tests.sdfsrn.given import picture_of

SEEDS = range(3)  # of data that no lever was chosen on
ASYMMETRIC = {"families": ("wedge", "l_block")}
MIRROR = {"symmetry": "mirror"}


def recipe_quality() -> dict[str, Any]:
    """The published recipe, with and without a mirror plane, and its ceiling; beyond the three seeds only collapses count."""
    variants = [Variant("recipe", seed, measured=seed in SEEDS) for seed in range(20)]
    for seed in SEEDS:
        variants += [
            Variant("symmetry", seed, MIRROR),
            Variant("ceiling", seed, data={"views_per_shape": 24}, run=CeilingRun),
            Variant("asymmetric", seed, data=ASYMMETRIC),
            Variant("asymmetric_mirror", seed, MIRROR, ASYMMETRIC),
        ]
    reports = train_all(variants)
    of = by_name(variants, reports)
    collapses = sum(report is None or report["n_failures"] > 0 for report in of["recipe"])
    recipe, plain = of["recipe"][: len(SEEDS)], counted().get("evaluation")
    of["recipe"] = recipe
    return {
        **{f"novel_iou_{name}": _mean_novel(own) for name, own in of.items()},
        "novel_iou_plain": _novel(plain) if plain else None,  # not counted is not bad
        "novel_iou_recipe_spread": float(np.ptp([_novel(report) for report in recipe])),
        **{f"novel_iou_recipe_{family}": _mean_novel(recipe, family) for family in ("sphere", "box", "ellipsoid")},
        "recipe_silhouette_loss": float(np.mean([report["silhouette_loss"] if report else 1 for report in recipe])),
        "recipe_wrong_pixels": float(np.mean([report["wrong_pixels"] if report else 1 for report in recipe])),
        "collapses": collapses,
        "collapse_seeds": 20,
    }


def _novel(report: dict[str, Any] | None, name: str = "mean") -> float:
    return float(report["novel_view_iou"][name]) if report else 0.0


def _mean_novel(reports: list[dict[str, Any] | None], name: str = "mean") -> float:
    return float(np.mean([_novel(report, name) for report in reports]))


def default_quality(n_shapes: int) -> dict[str, Any]:
    """The served model on shapes that it never saw, beside answers that need no training."""
    data = synthetic_dataset(dataclasses.replace(UNSEEN_DATA, n_shapes=n_shapes))
    checkpoint = Checkpoint.load(WEIGHTS / "default.safetensors")
    model = checkpoint.model(DEVICE)
    report = evaluate_model(model, data, checkpoint.temperature).report
    others = baselines(model, synthetic_dataset(DEFAULT_DATA), data) if n_shapes >= 60 else {}
    return {
        "novel_iou_default": report["novel_view_iou"]["mean"],
        "iou_3d_default": report["iou_3d"],
        "default_shapes": n_shapes,
        **{f"novel_iou_{name.replace(' ', '_')}": found["mean"] for name, found in others.items()},
    }


def refined_quality(n_shapes: int) -> dict[str, Any]:
    """Latents refined for fifty steps against the input's own mask, the view estimated, beside the same unrefined."""
    data = synthetic_dataset(dataclasses.replace(UNSEEN_DATA, n_shapes=n_shapes))
    shapes, views = data.shapes, data.views
    assert shapes is not None
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    rows = []
    for i in range(n_shapes):
        picture = picture_of(views, i)
        shape = served.shape(served.encode(picture), picture)
        refined = served.refined(shape, picture, ReconstructionConfig(refine_steps=50))
        azimuth_deg = float(views.azimuth_deg[i])
        truth = novel_truth(shapes[i : i + 1], azimuth_deg, views)
        for found in (shape, refined):
            prediction = novel_prediction(found.sdf, found.grid, azimuth_deg, views)
            rows.append((found.input_iou, float(iou(prediction.flatten(1), truth.flatten(1)).mean())))
    unrefined, refined_rows = np.mean(rows[::2], axis=0), np.mean(rows[1::2], axis=0)
    return {
        "refined_input_iou": float(refined_rows[0]),
        "refined_novel_iou": float(refined_rows[1]),
        "unrefined_input_iou": float(unrefined[0]),
        "unrefined_novel_iou": float(unrefined[1]),
        "refined_shapes": n_shapes,
    }


def photo_quality(folder: Path) -> dict[str, Any]:
    """IoU of real pictures' own masks, refined for fifty steps or not, the view estimated; one without an answer counts as 0."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    given = [read_picture(path.read_bytes()) for path in sorted(folder.glob("*.png"))]
    found = {
        name: [_explained(served, picture, ReconstructionConfig(size=64, refine_steps=steps)) for picture in given]
        for name, steps in (("photo_input_iou", 50), ("photo_unrefined_input_iou", 0))
    }
    return {name: float(np.mean(ious)) if ious else None for name, ious in found.items()} | {"photos": len(given)}


def _explained(served: Reconstructor, picture: Picture, config: ReconstructionConfig) -> float:
    with tempfile.TemporaryDirectory() as out:
        try:
            return float(served.run(picture, config, Path(out))["input_iou"])
        except ReconstructionFailed:
            return 0.0
