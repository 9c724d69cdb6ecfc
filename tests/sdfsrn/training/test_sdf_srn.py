"""Training as a whole: artifacts, resumption to the bit, collapse, and checkpoints that do not fit."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.training import TrainingCollapsed
from sdfsrn.training.sdf_srn import CHECKPOINT, train
from tests.sdfsrn.conftest import TINY_CONFIG, TINY_DATA, TinyTraining


class Interrupted(Exception):
    """Raised by a callback."""


def test_leaves_every_artifact(tiny_training: TinyTraining) -> None:
    names = {path.name for path in tiny_training.folder.iterdir()}
    assert names == {CHECKPOINT, "metrics.jsonl", "loss.png", "convergence.png", "novel_views.png", "evaluation.json"}
    assert tiny_training.checkpoint_steps == [4, 8]
    assert tiny_training.report["n_shapes"] == 6


def test_interrupted_and_resumed_ends_bit_equal(tiny_training: TinyTraining, tmp_path: Path) -> None:
    def stop(_path: Path, _step: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        train(TINY_CONFIG, TINY_DATA, tmp_path, device="cpu", on_checkpoint=stop)
    report = train(TINY_CONFIG, TINY_DATA, tmp_path, resume_from=tmp_path / CHECKPOINT, device="cpu")
    whole, resumed = Checkpoint.load(tiny_training.checkpoint), Checkpoint.load(tmp_path / CHECKPOINT)
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    assert resumed.history == whole.history
    assert report == tiny_training.report


def test_absurd_learning_rate_collapses_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingCollapsed, match="learning_rate"):
        train(dataclasses.replace(TINY_CONFIG, learning_rate=1.0, epochs=20), TINY_DATA, tmp_path, device="cpu")


@pytest.mark.parametrize("change", [{"seed": 5}, {"epochs": 9}])
def test_another_runs_checkpoint_is_refused(tiny_training: TinyTraining, tmp_path: Path, change: dict[str, int]) -> None:
    config = dataclasses.replace(TINY_CONFIG, **change)
    with pytest.raises(ValueError, match="another configuration"):
        train(config, TINY_DATA, tmp_path, resume_from=tiny_training.checkpoint, device="cpu")


def test_other_data_are_refused(tiny_training: TinyTraining, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained on"):
        train(TINY_CONFIG, dataclasses.replace(TINY_DATA, seed=4), tmp_path, resume_from=tiny_training.checkpoint, device="cpu")
