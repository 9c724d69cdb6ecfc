"""How good: silhouettes at angles that no view showed, for the recipe, the default model, and real pictures."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.cli.local import DEFAULT_DATA
from sdfsrn.config import WEIGHTS, ReconstructionConfig, SyntheticData
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.evaluation.metrics import iou
from sdfsrn.evaluation.protocol import encode
from sdfsrn.familiarity import UNFAMILIAR
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.images import Picture
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor, aligned
from tests.benchmarks.recipes import CeilingRun, Variant, by_name, train_all
from tests.benchmarks.served import ask, given, silhouettes
from tests.benchmarks.strangers import photographs, renders

TEST_SEEDS = (5_000_000, 5_000_001, 5_000_002)  # looked at for reports only; choices are made on seed 2,000,000
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
    recipe = of["recipe"][: len(SEEDS)]
    of["recipe"] = recipe
    return {
        **{f"novel_iou_{name}": _mean_novel(own) for name, own in of.items()},
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


def served_quality(n_shapes: int, seeds: Sequence[int] = TEST_SEEDS) -> dict[str, Any]:
    """What the default model answers to pictures as users send them, beside answers that need no network.

    The spread is that of the means of the seeds' own shapes.
    """
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    known = _codes(served, synthetic_dataset(DEFAULT_DATA, served.checkpoint.mask_radius))
    of_seed = [_of_seed(served, known, SyntheticData(n_shapes=n_shapes, seed=seed)) for seed in seeds]
    means = {name: [float(np.mean(rows[name])) for rows in of_seed] for name in of_seed[0] if name != "view_error_deg"}
    errors = np.concatenate([rows["view_error_deg"] for rows in of_seed])
    return {
        **{f"served_{name}": float(np.mean(found)) for name, found in means.items()},
        "served_novel_iou_spread": float(np.ptp(means["novel_iou"])),
        "served_iou_3d_spread": float(np.ptp(means["iou_3d"])),
        "served_view_error_deg_median": float(np.median(errors)),
        "served_view_error_deg_p90": float(np.quantile(errors, 0.9)),
        "served_margin_over_retrieval": float(np.mean(means["novel_iou"]) - np.mean(means["novel_iou_of_retrieval"])),
        "served_shapes": n_shapes * len(seeds),
    }


@dataclass(frozen=True)
class Codes:
    """The training's shapes, and the codes that the model gives their pictures."""

    shapes: Primitives
    codes: Float[Tensor, "n dim"]


def _codes(served: Reconstructor, trained_on: Dataset) -> Codes:
    assert trained_on.shapes is not None
    return Codes(trained_on.shapes, encode(served.model, trained_on.first_views))


def _of_seed(served: Reconstructor, known: Codes, data: SyntheticData) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for asked in given(data, served.checkpoint.mask_radius):
        answer, relative = ask(served, asked, solid=True), ask(served, asked, frame="input")
        looked = served.look(asked.picture)
        nearest = int(torch.cdist(looked.latent, known.codes).argmin())
        truth = silhouettes(asked.shape, asked.novel_views)
        retrieved = silhouettes(known.shapes[nearest : nearest + 1], asked.novel_views)
        own = aligned(looked.target, truth[:1].float())[0] > 0.5
        found = {
            "novel_iou": answer.novel_iou,
            "iou_3d": answer.iou_3d or 0.0,
            "input_iou": answer.input_iou,
            "view_error_deg": answer.view_error_deg,
            "novel_iou_frame_input": relative.novel_iou,
            "novel_iou_of_retrieval": float(iou(retrieved.flatten(1), truth.flatten(1)).mean()),
            "novel_iou_of_mask_repeated": float(iou(own.flatten().expand(len(truth), -1), truth.flatten(1)).mean()),
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    return rows


def shift_loss(n_shapes: int) -> dict[str, Any]:
    """What a shift of the object by one and by two pixels costs at unseen angles, beside the same picture unshifted."""
    served, data = Reconstructor.load(WEIGHTS / "default.safetensors"), SyntheticData(n_shapes=n_shapes, seed=TEST_SEEDS[0])
    means = {}
    for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (2, 0), (0, 2)):
        answers = (ask(served, asked).novel_iou for asked in given(data, served.checkpoint.mask_radius, shift))
        means[shift] = float(np.mean(list(answers)))
    lost = {shift: means[0, 0] - mean for shift, mean in means.items()}
    return {
        f"shift_loss_{pixels}_px": max(loss for shift, loss in lost.items() if max(map(abs, shift)) == pixels) for pixels in (1, 2)
    }


def refined_quality(n_shapes: int) -> dict[str, Any]:
    """Latents refined for fifty steps against the input's own mask, the view estimated, beside the same unrefined."""
    served, data = Reconstructor.load(WEIGHTS / "default.safetensors"), SyntheticData(n_shapes=n_shapes, seed=TEST_SEEDS[0])
    rows = []
    for asked in given(data, served.checkpoint.mask_radius):
        plain, refined = ask(served, asked), ask(served, asked, refine_steps=50)
        rows.append((refined.novel_iou, refined.novel_iou - plain.novel_iou, refined.input_iou, plain.input_iou))
    novel, gain, input_iou, unrefined = np.mean(rows, axis=0)
    return {
        "served_refined_novel_iou": float(novel),
        "served_refined_gain": float(gain),
        "served_refined_input_iou": float(input_iou),
        "served_unrefined_input_iou": float(unrefined),
        "refined_shapes": n_shapes,
    }


def familiarity_quality(n_shapes: int) -> dict[str, Any]:
    """Whether the model tells its own kind from photographs and from renders of real objects (the `test` split)."""
    served, data = Reconstructor.load(WEIGHTS / "default.safetensors"), SyntheticData(n_shapes=n_shapes, seed=TEST_SEEDS[0])
    own = [_familiarity(served, asked.picture) for asked in given(data, served.checkpoint.mask_radius)]
    others = {
        "photographs": [_familiarity(served, picture) for picture in photographs()],
        "objects": [_familiarity(served, picture) for _, picture in renders("test", seed=0)],
    }
    return {
        "familiar_called_unfamiliar": float(np.mean(np.array(own) < UNFAMILIAR)),
        **{f"familiarity_auroc_{name}": _auroc(own, found) if found else None for name, found in others.items()},
        **{f"{name}_called_familiar": _share_familiar(found) if found else None for name, found in others.items()},
    }


def _familiarity(served: Reconstructor, picture: Picture) -> float:
    looked = served.look(picture)
    try:
        return served.familiarity(looked, served.shape(looked)) or 0.0
    except ReconstructionFailed:
        return 0.0


def _share_familiar(found: list[float]) -> float:
    return float(np.mean(np.array(found) >= UNFAMILIAR))


def _auroc(higher: list[float], lower: list[float]) -> float:
    """The chance that one of the first is above one of the second; ties count half (Mann and Whitney 1947)."""
    first, second = np.array(higher)[:, None], np.array(lower)[None]
    return float(((first > second) + 0.5 * (first == second)).mean())


def photo_quality() -> dict[str, Any]:
    """IoU of real pictures' own masks, refined for fifty steps or not, the view estimated; one without an answer counts as 0."""
    served, pictures = Reconstructor.load(WEIGHTS / "default.safetensors"), photographs()
    found = {
        name: [_explained(served, picture, ReconstructionConfig(size=64, refine_steps=steps)) for picture in pictures]
        for name, steps in (("photo_input_iou", 50), ("photo_unrefined_input_iou", 0))
    }
    return {name: float(np.mean(ious)) if ious else None for name, ious in found.items()} | {"photos": len(pictures)}


def _explained(served: Reconstructor, picture: Picture, config: ReconstructionConfig) -> float:
    with tempfile.TemporaryDirectory() as out:
        try:
            return float(served.run(picture, config, Path(out))["input_iou"])
        except ReconstructionFailed:
            return 0.0
