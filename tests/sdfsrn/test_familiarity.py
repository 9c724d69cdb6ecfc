"""Familiarity on codes and masks whose distribution is chosen here."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdfsrn.familiarity import SHRUNK, Familiarity

SPREAD = torch.tensor([3.0, 1.0, 0.5, 0.3])


def _disc(radius: float) -> Tensor:
    axis = torch.linspace(-1, 1, 64)
    return (torch.hypot(axis[:, None], axis) < radius).float()


def _bar() -> Tensor:
    axis = torch.linspace(-1, 1, 64).abs()
    return ((axis[:, None] < 0.2) & (axis < 0.6)).float()


def _codes(n: int, seed: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * SPREAD


@pytest.fixture(scope="module")
def known() -> Familiarity:
    """Discs of several radii, codes that are normal, and masks that are explained to 0.95 to 0.99."""
    radii = torch.linspace(0.3, 0.6, 200).tolist()
    codes = _codes(200, 1)
    kind = [(codes[i : i + 1], _disc(radius), 0.95 + 0.04 * i / 200) for i, radius in enumerate(radii)]
    return Familiarity.fit(_codes(2000, 0), torch.stack([_disc(radius) for radius in radii]), kind)


def test_the_codes_distance_is_mahalanobis(known: Familiarity) -> None:
    """The mean of its square, per dimension, is the share of the variance that was not added to it."""
    squared = [math.exp(2 * float(known.distances(code[None], _disc(0.5), 0.97)[0])) for code in _codes(1000, 2)]
    variances = SPREAD.square()
    expected = (variances / (variances + SHRUNK * variances.mean())).mean()
    assert np.mean(squared) == pytest.approx(float(expected), rel=0.1)
    along, across = torch.tensor([[3.0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 3.0]])
    assert known.distances(across, _disc(0.5), 0.97)[0] > known.distances(along, _disc(0.5), 0.97)[0] + 0.5


def test_others_of_the_kind_are_familiar_and_strangers_are_not(known: Familiarity) -> None:
    own = [known.of(code[None], _disc(0.45), 0.97) for code in _codes(200, 3)]
    assert np.mean(np.array(own) > 0.05) > 0.9 and max(own) <= 1
    usual = torch.zeros(1, 4)
    assert known.of(usual, _disc(0.45), 0.97) > 0.3
    assert known.of(usual, _bar(), 0.97) < 0.03, "another mask"
    assert known.of(usual + 20, _disc(0.45), 0.97) == 0, "another code"
    assert known.of(usual, _disc(0.45), 0.6) == 0, "an answer that does not explain the mask"


def test_what_varies_little_is_far(known: Familiarity) -> None:
    lengths = known.code_metric.diagonal()
    assert (lengths.diff() > 0).all(), "the spreads fall"
    assert lengths[0] < 1 < lengths[3]
