"""What the library's tests share: where the test data lie, and a model small enough to train within a second."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.training.sdf_srn import CHECKPOINT, train

ROOT = Path(__file__).parents[2]

TINY_DATA = SyntheticData(n_shapes=6, seed=3)
TINY_CONFIG = SdfSrnConfig(
    epochs=4,
    batch_size=3,
    n_rays=32,
    n_samples=8,
    latent_dim=16,
    hidden_dim=32,
    learning_rate=1e-4,
    checkpoint_every=2,
)


@dataclass
class TinyTraining:
    """A finished training, what it returned and what it reported."""

    folder: Path
    report: dict[str, Any]
    phases: list[str]
    checkpoint_steps: list[int]

    @property
    def checkpoint(self) -> Path:
        """Its last checkpoint."""
        return self.folder / CHECKPOINT


@pytest.fixture(scope="session")
def tiny_training(tmp_path_factory: pytest.TempPathFactory) -> TinyTraining:
    """A whole training of six shapes on the CPU, artifacts included."""
    folder = tmp_path_factory.mktemp("tiny")
    phases: list[str] = []
    steps: list[int] = []
    report = train(
        TINY_CONFIG,
        TINY_DATA,
        folder,
        device="cpu",
        progress=lambda phase, step, total, metrics: phases.append(phase),
        on_checkpoint=lambda path, step: steps.append(step),
    )
    return TinyTraining(folder, report, phases, steps)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Test data that nobody here made: $SDFSRN_TEST_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("SDFSRN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set SDFSRN_TEST_DATA to the folder that holds primitives/ and the rest")
    return folder
