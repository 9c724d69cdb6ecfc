"""Ranges: every bound of every setting holds, from both sides."""

import dataclasses
import subprocess
import sys

import pytest

from sdfsrn.config import FitConfig, ReconstructionConfig, SdfSrnConfig, SyntheticData, View, ring

BOUNDED = [
    (config, spec.name, spec.metadata[end], sign)
    for config in (FitConfig, SdfSrnConfig, SyntheticData, View)
    for spec in dataclasses.fields(config)
    for end, sign in (("low", -1), ("high", 1))
    if spec.metadata.get(end) is not None
]


@pytest.mark.parametrize(("config", "name", "bound", "sign"), BOUNDED)
def test_bounds_are_inclusive_and_kept(config: type, name: str, bound: float, sign: int) -> None:
    config(**{name: bound})
    with pytest.raises(ValueError, match=name):
        config(**{name: bound + sign})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_angles_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="azimuth_deg"):
        View(value, 0.0)


@pytest.mark.parametrize("value", ["10.5", "10.0", "True", "'10'", "None"])
def test_what_is_counted_is_whole(value: str) -> None:
    """In a process of its own: here constructors check their arguments' types, elsewhere they do not."""
    code = f"from sdfsrn.config import SdfSrnConfig; SdfSrnConfig(epochs={value})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert "ValueError: epochs must be a whole number" in said


@pytest.mark.parametrize("fields", [{"views": ()}, {"views": ring(361, 0)}, {"views": ring(360, 0), "size": 1024}, {"outputs": ()}])
def test_reconstruction_limits(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"views|outputs"):
        ReconstructionConfig(**fields)


def test_ring_is_even() -> None:
    assert [view.azimuth_deg for view in ring(6, 20)] == [0, 60, 120, 180, 240, 300]
