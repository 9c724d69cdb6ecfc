"""Weights, configuration and step in one safetensors file: enough to resume and to serve, and never a pickle."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdfsrn.checkpoint_header import FORMAT
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.tensor_files import read_tensors


@dataclass(frozen=True)
class Checkpoint:
    """`weights` by parameter name; `state` holds what only resuming needs (optimiser moments, history, snapshots), or nothing."""

    model_config: ModelConfig
    weights: dict[str, Tensor]
    step: int
    temperature: float
    mask_radius: float
    camera_distance: float
    fovy_deg: float
    method: str = "sdf_srn"
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    dataset_digest: str = ""
    lowest_deg: float = -10.0  # elevations of the cameras it was trained from: where a picture's view is sought
    highest_deg: float = 40.0
    tile_radius: float | None = None  # of a mask in what the encoder sees; older models see it as large as `mask_radius`
    state: dict[str, Tensor] = field(default_factory=dict)
    known: dict[str, Tensor] = field(default_factory=dict)  # the fields of its `sdfsrn.familiarity.Familiarity`, if it has one

    def model(self, device: torch.device) -> Model:
        """The networks with these weights, in single precision, ready to be asked and not to be trained."""
        model = Model(self.model_config)
        model.load_state_dict({name: value.float() for name, value in self.weights.items()})
        return model.to(device).eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        tensors = {f"weights.{name}": value for name, value in self.weights.items()}
        tensors |= {f"state.{name}": value for name, value in self.state.items()}
        tensors |= {f"known.{name}": value for name, value in self.known.items()}
        apart = ("model_config", "weights", "state", "known")
        facts = {name: value for name, value in vars(self).items() if name not in apart and value is not None}
        metadata = {"format": FORMAT, "model": json.dumps(asdict(self.model_config)), "facts": json.dumps(facts)}
        partial = path.with_name(path.name + ".partial")
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial, metadata)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o644)  # safetensors makes it private, but a service's other users must read it
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file that `save` wrote. Raises ValueError that says what is wrong with any other."""
        metadata, tensors = read_tensors(path, FORMAT)
        weights = {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
        state, known = (
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in ("state.", "known.")
        )
        try:
            networks, facts = ModelConfig(**json.loads(metadata["model"])), json.loads(metadata["facts"])
            return cls(networks, weights, **facts, state=state, known=known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name} does not describe its networks and itself as {FORMAT} does: {error}") from error

    def for_serving(self) -> "Checkpoint":
        """The same model in half precision without what only resuming needs."""
        return replace(self, weights={name: value.half() for name, value in self.weights.items()}, state={})
