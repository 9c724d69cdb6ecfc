"""How good: silhouettes at angles that no view showed, for the recipe, the default model, and real pictures."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from sdfsrn.cli.local import DEFAULT_DATA
from sdfsrn.config import WEIGHTS, ReconstructionConfig, SyntheticData, View
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.data.synthetic import CAMERA_DISTANCE, FOVY_DEG, families_of
from sdfsrn.evaluation.baselines import fit_extents, mean_shape, visual_hull
from sdfsrn.evaluation.metrics import iou
from sdfsrn.evaluation.protocol import NOVEL_SAMPLES, encode, rays_meet_inside
from sdfsrn.familiarity import UNFAMILIAR
from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.geometry.primitives import Primitives
from sdfsrn.images import Picture
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import ray_minimum
from tests.benchmarks.recipes import CeilingRun, Variant, by_name, train_all
from tests.benchmarks.served import Given, ask, given, rays, scale_to, scaled, silhouettes
from tests.benchmarks.strangers import photographs, renders

TEST_SEEDS = (5_000_000, 5_000_001, 5_000_002)  # looked at for reports only; choices are made on seed 2,000,000
SEEDS = range(3)  # of data that no lever was chosen on
FEW = 64  # pixels per side of what is slow to render
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
    """What the default model answers to pictures as users send them, beside answers that need no network."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    known = known_to(served, synthetic_dataset(DEFAULT_DATA, served.checkpoint.mask_radius))
    return served_figures(served, known, n_shapes, seeds)


@dataclass(frozen=True)
class Known:
    """The shape that each of the training's pictures shows, their mean, and the codes that the model gives the pictures."""

    shapes: Primitives
    mean: GridField
    codes: Float[Tensor, "n dim"]


def known_to(served: Reconstructor, trained_on: Dataset) -> Known:
    """What answers without a network need of the training."""
    assert trained_on.shapes is not None
    shapes = trained_on.shapes
    return Known(shapes[trained_on.object_of], mean_shape(shapes), encode(served.model, trained_on.views))


def served_figures(served: Reconstructor, known: Known, n_shapes: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Means over shapes and seeds; the answers that are slow to find are of the first seed alone.

    The spread is that of the means of the seeds' own shapes.
    """
    of_seed = [_of_seed(served, known, SyntheticData(n_shapes=n_shapes, seed=seed), slow=seed == seeds[0]) for seed in seeds]
    found = {name: np.array([rows[name] for rows in of_seed if name in rows]) for name in of_seed[0]}  # seed, shape
    errors, families = found.pop("view_error_deg"), np.array(families_of(SyntheticData(n_shapes=n_shapes)))
    told = {"": errors, "_without_spheres": errors[:, families != "sphere"]}  # a sphere has no wrong view
    return {
        **{f"served_{name}": float(values.mean()) for name, values in found.items()},
        **{
            f"served_{name}_{family}": float(found[name][:, families == family].mean())
            for name in ("novel_iou", "iou_3d")
            for family in dict.fromkeys(families.tolist())
        },
        "served_novel_iou_spread": float(np.ptp(found["novel_iou"].mean(axis=1))),
        "served_iou_3d_spread": float(np.ptp(found["iou_3d"].mean(axis=1))),
        **{f"served_view_error_deg_median{of}": float(np.median(values)) for of, values in told.items()},
        **{f"served_view_error_deg_p90{of}": float(np.quantile(values, 0.9)) for of, values in told.items()},
        "served_margin_over_retrieval": float(found["novel_iou"].mean() - found["novel_iou_of_retrieval"].mean()),
        "served_shapes": n_shapes * len(seeds),
    }


def _of_seed(served: Reconstructor, known: Known, data: SyntheticData, slow: bool) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for asked in given(data, served.checkpoint.mask_radius):
        answer = ask(served, asked, solid=True)
        others = _quick_answers(served, known, asked)
        if slow:
            others |= _slow_answers(known.mean, asked, served.checkpoint.mask_radius)
        found = {
            "novel_iou": answer.novel_iou,
            "iou_3d": answer.iou_3d or 0.0,
            "input_iou": answer.input_iou,
            "view_error_deg": answer.view_error_deg,
            **{f"novel_iou_of_{name}": _novel_iou(asked, masks) for name, masks in others.items()},
        }
        if slow:
            found["novel_iou_frame_input"] = ask(served, asked, frame="input").novel_iou
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    return rows


def _novel_iou(asked: Given, masks: Bool[Tensor, "views size size"]) -> float:
    truth = silhouettes(asked.shape, asked.novel_views, masks.shape[-1])
    return float(iou(masks.flatten(1), truth.flatten(1)).mean())


def _quick_answers(served: Reconstructor, known: Known, asked: Given) -> dict[str, Bool[Tensor, "views size size"]]:
    """Silhouettes at the unseen views of other answers: told the true view, which favours them, and as large as the truth.

    Only retrieval uses the model, for the codes of pictures.
    """
    nearest = int(torch.cdist(served.look(asked.picture).latent, known.codes).argmin())
    retrieved = scaled(known.shapes[nearest : nearest + 1], asked.view, served.checkpoint.mask_radius)
    mask = silhouettes(asked.shape, (asked.view,))[0]
    return {
        "retrieval": silhouettes(retrieved, asked.novel_views),
        "mask_repeated": mask.expand(len(asked.novel_views), -1, -1),
    }


def _slow_answers(mean: GridField, asked: Given, mask_radius: float) -> dict[str, Bool[Tensor, "views size size"]]:
    """The same of answers that need no network at all, in fewer pixels."""
    pose = orbit_c2w(torch.tensor([asked.view.azimuth_deg]), torch.tensor([asked.view.elevation_deg]), CAMERA_DISTANCE)[0]
    scale = scale_to(mask_radius, lambda distance: _met(mean, (asked.view,), distance)[0])
    hull = visual_hull(silhouettes(asked.shape, (asked.view,))[0], pose, FOVY_DEG)
    in_hull = ray_minimum(hull, *rays(asked.novel_views, FEW), NOVEL_SAMPLES) < 0
    fit = scaled(fit_extents(asked.family, asked.own_mask, pose, FOVY_DEG), asked.view, mask_radius)
    return {
        "mean_shape": _met(mean, asked.novel_views, CAMERA_DISTANCE / scale),
        "visual_hull": in_hull.view(-1, FEW, FEW),
        "right_family": silhouettes(fit, asked.novel_views, FEW),
    }


def _met(field: GridField, views: tuple[View, ...], distance: float) -> Bool[Tensor, "views size size"]:
    return rays_meet_inside(field, field, *rays(views, FEW, distance)).view(-1, FEW, FEW)


def shift_loss(n_shapes: int) -> dict[str, Any]:
    """What changes that a user would not notice cost at unseen angles, beside the same picture unchanged.

    The object moved in the picture, at worst, or its mask grown by one pixel on all sides.
    """
    served, data = Reconstructor.load(WEIGHTS / "default.safetensors"), SyntheticData(n_shapes=n_shapes, seed=TEST_SEEDS[0])
    radius = served.checkpoint.mask_radius
    unchanged = _mean_answer(served, given(data, radius))

    def moved(*shifts: tuple[float, float]) -> float:
        return max(unchanged - _mean_answer(served, given(data, radius, shift)) for shift in shifts)

    return {
        "shift_loss_1_px": moved((1, 0), (-1, 0), (0, 1)),
        "shift_loss_2_px": moved((2, 0), (0, 2)),
        "half_pixel_loss": moved((0.5, 0), (0, 0.5)),
        "grown_mask_loss": unchanged - _mean_answer(served, map(with_grown_mask, given(data, radius))),
    }


def _mean_answer(served: Reconstructor, pictures: Iterable[Given]) -> float:
    return float(np.mean([ask(served, asked).novel_iou for asked in pictures]))


def with_grown_mask(asked: Given) -> Given:
    """The same picture with one pixel more of mask on all sides, as a careless cut-out has."""
    grown = ndimage.binary_dilation(asked.picture.mask)
    return replace(asked, picture=replace(asked.picture, mask=grown))


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
