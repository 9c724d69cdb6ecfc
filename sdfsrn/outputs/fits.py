"""The files of a fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from sdfsrn.geometry.meshes import save_mesh
from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.rendering.rays import RenderedView
from sdfsrn.rendering.silhouettes import soft_silhouette

matplotlib.use("agg")


def write_view(folder: Path, number: int, seen: RenderedView, camera: Pinhole, to_sent: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    """silhouette_, depth_ and normals_NNN of one view, in the capture's units and axes; returns its camera as it is sent back."""
    silhouette = soft_silhouette(seen.minima, camera.pixel_width / 4)
    _save_grey(silhouette.numpy(), folder / f"silhouette_{number:03d}.png")
    scale = float(np.cbrt(np.linalg.det(to_sent[:3, :3])))
    np.save(folder / f"depth_{number:03d}.npy", (seen.depth * scale).numpy().astype(np.float32))
    turned = seen.normals @ torch.from_numpy(to_sent[:3, :3] / scale).float().T
    colours = (turned * 0.5 + 0.5) * (seen.minima < 0)[..., None]
    Image.fromarray((colours * 255).round().to(torch.uint8).numpy()).save(folder / f"normals_{number:03d}.png")
    return {"c2w": sent_pose(camera.c2w, to_sent).tolist(), "K": camera.intrinsics.tolist(), "size": [camera.width, camera.height]}


def sent_pose(c2w: Float[np.ndarray, "4 4"], to_sent: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """A pose of the unit ball's world in the coordinates of the capture; its axes keep their length."""
    found: np.ndarray = to_sent @ c2w
    found[:3, :3] /= np.cbrt(np.linalg.det(to_sent[:3, :3]))
    return found


def write_loss(rows: Sequence[dict[str, float]], path: Path) -> None:
    """The loss terms over the steps, one line each, on a logarithmic scale; a row need not have all of them."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
        some = [row for row in rows if name in row]
        axes.plot([row["step"] for row in some], [max(row[name], 1e-7) for row in some], label=name, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss, scene units", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def write_mesh(mesh: Any, to_sent: Float[np.ndarray, "4 4"], path: Path) -> dict[str, Any]:
    """A mesh of the unit ball's world in the coordinates of the capture; what is to be said about it."""
    mesh.apply_transform(to_sent)
    save_mesh(mesh, path)
    return {"file": path.name, "watertight": bool(mesh.is_watertight), "vertices": len(mesh.vertices), "faces": len(mesh.faces)}


def write_json(result: dict[str, Any], path: Path) -> None:
    """Without NaN, which JSON has not."""
    path.write_text(json.dumps(result, indent=1, allow_nan=False))


def _save_grey(picture: np.ndarray, path: Path) -> None:
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(path)
