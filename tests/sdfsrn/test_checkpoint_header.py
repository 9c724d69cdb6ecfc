"""What is believed of a checkpoint file, and what is not."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.checkpoint_header import FORMAT, network_shapes, read_facts, without_state
from sdfsrn.config import WEIGHTS
from sdfsrn.networks.model import Model, ModelConfig
from tests.sdfsrn.conftest import TinyTraining


@pytest.mark.parametrize("sizes", [(128, 128), (16, 32), (7, 64)])
def test_the_shapes_are_those_of_the_networks(sizes: tuple[int, int]) -> None:
    found = {name: tuple(value.shape) for name, value in Model(ModelConfig(*sizes)).state_dict().items()}
    assert found == network_shapes(*sizes)


def test_real_checkpoints_are_believed(tiny_training: TinyTraining) -> None:
    assert read_facts((WEIGHTS / "default.safetensors").read_bytes()).networks["latent_dim"] == 128
    assert read_facts(tiny_training.checkpoint.read_bytes()).networks == {"latent_dim": 16, "hidden_dim": 32, "symmetry": "none"}


FACTS = {"step": 1, "temperature": 0.01, "mask_radius": 0.3, "camera_distance": 2.5, "fovy_deg": 50.0, "method": "sdf_srn"}


def checkpoint(**metadata: Any) -> bytes:
    weights = {f"weights.{name}": torch.zeros(shape) for name, shape in network_shapes(8, 16).items()}
    model = json.dumps({"latent_dim": 8, "hidden_dim": 16})
    return save(weights, {"format": FORMAT, "model": model, "facts": json.dumps(FACTS), **metadata})


def test_a_file_made_by_hand_is_believed_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "made.safetensors"
    path.write_bytes(checkpoint())
    assert read_facts(path.read_bytes()).networks["hidden_dim"] == 16
    assert Checkpoint.load(path).mask_radius == 0.3


def changed(change: Any) -> bytes:
    """A good file whose header was changed."""
    data = checkpoint()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def resize(header: dict[str, Any]) -> None:
    header["weights.decoder.out.weight"]["shape"] = [16, 1]


def overlap(header: dict[str, Any]) -> None:
    header["state.more"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def huge(header: dict[str, Any]) -> None:
    header["weights.decoder.out.weight"]["data_offsets"] = [0, 1 << 62]


def strange(header: dict[str, Any]) -> None:
    header["weights.decoder.out.weight"] = [1, 2]


def listed(header: dict[str, Any]) -> None:
    header["weights.decoder.out.weight"]["dtype"] = []


def lengthy(header: dict[str, Any]) -> None:
    header["weights.decoder.out.weight"]["dtype"] = "F" * 100_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no safetensors"),
        (pickle.dumps({"weights": 1}) * 50, "no safetensors"),
        ((2 << 30).to_bytes(8, "little") + b"{}" * 100, "header"),
        ((20).to_bytes(8, "little") + b"[1,2,3]" + b" " * 40, "no JSON object"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "no JSON object"),
        (save({"a": torch.zeros(1)}), "no checkpoint of format"),
        (checkpoint(model="{}"), "how large its networks"),
        (checkpoint(model=json.dumps({"latent_dim": 10**9, "hidden_dim": 16})), "latent_dim must be"),
        (checkpoint(model=json.dumps({"latent_dim": True, "hidden_dim": 16})), "latent_dim must be"),
        (checkpoint(model=json.dumps({"latent_dim": 8, "hidden_dim": 16, "symmetry": "x"})), "symmetry"),
        (checkpoint(model=json.dumps({"latent_dim": 9, "hidden_dim": 16})), "expected a float of"),
        (checkpoint(model=json.dumps({"latent_dim": 8, "hidden_dim": 16, "bogus": 1})), "nothing is known"),
        (checkpoint(facts="{}"), "must say its"),
        (checkpoint(facts=json.dumps({**FACTS, "mask_radius": 1e-9})), "mask_radius must be"),
        (checkpoint(facts=json.dumps({**FACTS, "fovy_deg": "50"})), "fovy_deg must be"),
        (checkpoint(facts=json.dumps({**FACTS, "temperature": float("nan")})), "temperature must be"),
        (checkpoint(facts=json.dumps({**FACTS, "config": []})), "fact 'config'"),
        (checkpoint(facts=json.dumps({**FACTS, "highest_deg": 91.0})), "highest_deg must be"),
        (checkpoint(facts=json.dumps({**FACTS, "lowest_deg": "low"})), "lowest_deg must be"),
        (checkpoint(facts=json.dumps({**FACTS, "extra": 1})), "fact 'extra'"),
        (checkpoint() + b"more", "fill the file"),
        (checkpoint()[:-4], "fill the file"),
        (changed(resize), "expected a float of"),
        (changed(overlap), "overlap"),
        (changed(huge), "not described|expected a float"),
        (changed(strange), "not described"),
        (changed(listed), "not described"),
        (changed(lengthy), "is F{20} of shape"),
        (changed(lambda header: header.pop("weights.decoder.out.bias")), "lacks"),
    ],
)
def test_whatever_else_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_facts(data)


def test_without_its_state_a_checkpoint_is_the_same_model(tiny_training: TinyTraining) -> None:
    data = tiny_training.checkpoint.read_bytes()
    served = without_state(data)
    full, kept = load(data), load(served)
    assert any(name.startswith("state.") for name in full)
    assert set(kept) == {name for name in full if not name.startswith("state.")}
    assert all(torch.equal(full[name], value) for name, value in kept.items())
    assert read_facts(served).networks == read_facts(data).networks
    assert len(served) == 8 + int.from_bytes(served[:8], "little") + sum(4 * value.numel() for value in kept.values())
    assert load(without_state(served)).keys() == kept.keys(), "there is nothing left to take away"


@pytest.mark.parametrize("damage", [lambda header: header.update(x=1), lambda header: header.update(x={"data_offsets": [0]})])
def test_what_is_no_checkpoint_has_no_state_to_lose(damage: Any) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        without_state(changed(damage))
    with pytest.raises(ValueError, match="safetensors"):
        without_state(b"no such file")
