"""Pictures for people: what was asked, what came out, where they differ."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

matplotlib.use("agg")

SHOWN = 6  # shapes in a figure


def loss_figure(history: Sequence[dict[str, float]], path: Path) -> None:
    """The loss terms over epochs, one line each, on a logarithmic scale."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    for name in history[0]:
        if name not in ("epoch", "step"):
            axes.plot(epochs, [max(row[name], 1e-7) for row in history], label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    path: Path,
    title: str = "",
) -> None:
    """Rows of pictures, (height, width) in [0, 1] or (height, width, 3), with names at the left and on top."""
    n_columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.25 * n_columns + 1.0, 1.3 * len(rows) + (0.6 if title else 0.35)), layout="constrained")
    axes = figure.subplots(len(rows), n_columns, squeeze=False)
    for i, row in enumerate(rows):
        for j in range(n_columns):
            axis = axes[i][j]
            axis.set(xticks=[], yticks=[])
            if j < len(row):
                axis.imshow(row[j], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            else:
                axis.set_axis_off()
            if i == 0 and j < len(column_names):
                axis.set_title(column_names[j], fontsize=8)
            if j == 0:
                axis.set_ylabel(row_names[i], fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def novel_views_figure(truth: Tensor | None, prediction: Tensor, names: Sequence[str], path: Path) -> None:
    """Six unseen angles of the first shapes, truth, where it is known, over prediction; masks are (shape, view, size, size)."""
    rows, row_names, title = [], [], "six angles that the model never saw of these shapes"
    for i, name in enumerate(names[:SHOWN]):
        predicted = prediction[i].numpy()
        if truth is None:
            rows.append(list(predicted.astype(np.float32)))
            row_names.append(name[-12:])
        else:
            true = truth[i].numpy()
            rows += [list(true.astype(np.float32)), [compare(p, t) for p, t in zip(predicted, true, strict=True)]]
            row_names += [f"{name}\ntruth", "prediction"]
    if truth is not None:
        title += "; red: too much, blue: missing"
    picture_grid(rows, row_names, [f"view {i}" for i in range(prediction.shape[1])], path, title)


def compare(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where two silhouettes differ: white both, red only predicted, blue only true. (height, width, 3) in [0, 1]."""
    soft = prediction.astype(np.float32)
    true = truth.astype(np.float32)
    both = np.minimum(soft, true)
    return np.stack([np.maximum(both, soft), both, np.maximum(both, true)], axis=-1)
