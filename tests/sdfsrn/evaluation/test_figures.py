"""Figures: the colours mean what the legend says, and files hold pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sdfsrn.evaluation.figures import compare, loss_figure, novel_views_figure


def test_red_is_too_much_and_blue_is_missing() -> None:
    prediction = np.array([[1, 1], [0, 0]], dtype=bool)
    truth = np.array([[1, 0], [1, 0]], dtype=bool)
    white, red, blue, black = (1, 1, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)
    np.testing.assert_array_equal(compare(prediction, truth), [[white, red], [blue, black]])


def test_figures_are_pictures(tmp_path: Path) -> None:
    history = [{"epoch": epoch, "loss": 1 / epoch, "silhouette_entropy": 0.0} for epoch in (1, 2, 3)]
    loss_figure(history, tmp_path / "loss.png")
    masks = torch.rand(2, 6, 64, 64) < 0.5
    novel_views_figure(masks, masks, ["sphere", "box"], tmp_path / "novel.png")
    loss, novel = (Image.open(tmp_path / name) for name in ("loss.png", "novel.png"))
    assert loss.width > 300 and novel.width > novel.height > 300
