"""Which device is picked, and what it computes fast with."""

import pytest
import torch

from sdfsrn.device import fast_dtype, pick_device


def test_named_and_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("SDFSRN_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    monkeypatch.delenv("SDFSRN_DEVICE")
    there_is_more = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (pick_device().type != "cpu") == there_is_more


@pytest.mark.parametrize("name", ["quantum", "cuda:99", "mps" if not torch.backends.mps.is_available() else "cuda"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        pick_device(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fast_dtype_can_be_named(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setenv("SDFSRN_FAST_DTYPE", str(dtype).removeprefix("torch."))
    assert fast_dtype(torch.device("cpu")) == dtype


def test_an_unknown_fast_dtype_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFSRN_FAST_DTYPE", "float8")
    with pytest.raises(ValueError, match="one of bfloat16, float32, got 'float8'"):
        fast_dtype(torch.device("cpu"))
