"""Which device is picked."""

import pytest
import torch

from sdfsrn.device import pick_device


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
