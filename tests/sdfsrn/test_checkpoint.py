"""Checkpoints read back whole, and anything else is refused with a reason."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.checkpoint_header import FORMAT
from tests.sdfsrn.conftest import TinyTraining


def test_saved_is_loaded_bit_for_bit(tiny_training: TinyTraining, tmp_path: Path) -> None:
    first = Checkpoint.load(tiny_training.checkpoint)
    first.save(tmp_path / "again")
    again = Checkpoint.load(tmp_path / "again")
    assert all(torch.equal(value, again.weights[name]) for name, value in first.weights.items())
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())
    assert (again.config, again.data, again.dataset_digest) == (first.config, first.data, first.dataset_digest)


def test_for_serving_is_half_the_weights_and_nothing_else(tiny_training: TinyTraining, tmp_path: Path) -> None:
    Checkpoint.load(tiny_training.checkpoint).for_serving().save(tmp_path / "served")
    served = Checkpoint.load(tmp_path / "served")
    assert served.state == {}
    assert {value.dtype for value in served.weights.values()} == {torch.float16}
    assert served.model(torch.device("cpu")).decoder.out.weight.dtype == torch.float32


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "other", "missing", "foreign"])
def test_damaged_and_other_files_are_refused(tiny_training: TinyTraining, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file.safetensors"
    whole = tiny_training.checkpoint.read_bytes()
    if damage == "other":
        save_file({"a": torch.zeros(1)}, path)
    elif damage == "foreign":
        save_file({"a": torch.zeros(1)}, path, {"format": FORMAT, "model": "{}", "facts": '{"year": 2026}'})
    elif damage != "missing":
        path.write_bytes({"empty": b"", "text": b"not a checkpoint at all", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(ValueError, match=r"file\.safetensors"):
        Checkpoint.load(path)
