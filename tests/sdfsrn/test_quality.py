"""What neither the recipe nor the served model may fall below; minutes each. The bars themselves are the benchmark's."""

import json
from pathlib import Path

import pytest
import torch

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.cli.local import UNSEEN_DATA
from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.protocol import evaluate_model
from sdfsrn.training.sdf_srn import train

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.long
def test_the_published_recipe(tmp_path: Path) -> None:
    report = train(SdfSrnConfig(), SyntheticData(), tmp_path)
    assert report["silhouette_loss"] <= 0.005 and report["wrong_pixels"] <= 0.005
    assert report["novel_view_iou"]["mean"] >= 0.91
    assert report["n_failures"] == 0


def test_the_served_model_is_as_good_as_its_card_says() -> None:
    checkpoint = Checkpoint.load(WEIGHTS / "default.safetensors")
    model = checkpoint.model(torch.device("cpu"))
    data = synthetic_dataset(UNSEEN_DATA, checkpoint.mask_radius)
    report = evaluate_model(model, data, checkpoint.temperature).report
    card = json.loads((WEIGHTS / "default.json").read_text())["evaluation"]
    assert report["novel_view_iou"]["mean"] >= 0.93 and report["n_failures"] == 0
    assert report["iou_3d"] >= 0.88, "silhouettes do not show a hollow"
    for name in ("silhouette_loss", "wrong_pixels", "input_iou", "iou_3d"):
        assert report[name] == pytest.approx(card[name], rel=0.02), name
    assert report["novel_view_iou"]["mean"] == pytest.approx(card["novel_view_iou"]["mean"], abs=2e-3)
