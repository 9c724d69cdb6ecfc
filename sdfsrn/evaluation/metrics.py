"""Measures of agreement."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor


def iou(prediction: Bool[Tensor, "*batch n"], truth: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Intersection over union along the last axis; 1 where both are empty."""
    union = (prediction | truth).sum(-1)
    return ((prediction & truth).sum(-1) / union.clamp(min=1)).where(union > 0, union.new_ones(()).float())


def chamfer_l1(points: np.ndarray, others: np.ndarray) -> float:
    """Mean of the two mean distances (not squared) from each set's points to the nearest of the other, scene units."""
    there, _ = cKDTree(others).query(points)
    back, _ = cKDTree(points).query(others)
    return float((np.mean(there) + np.mean(back)) / 2)
