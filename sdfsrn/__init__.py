"""3-D shape from single pictures, learned from silhouettes alone.

The names below are the library's public ones. Each is imported when it is first asked for, so that `import sdfsrn` and the
service, which needs only configurations and pictures, do without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdfsrn.checkpoint import Checkpoint
    from sdfsrn.client import AsyncClient, Client
    from sdfsrn.config import FitConfig, ReconstructionConfig, SdfSrnConfig, SyntheticData, View
    from sdfsrn.data.captures import read_captures
    from sdfsrn.data.dataset import Dataset, open_dataset, save_dataset
    from sdfsrn.evaluation.protocol import evaluate_model
    from sdfsrn.fits import fit
    from sdfsrn.images import Picture, read_picture
    from sdfsrn.reconstruct import Reconstructor
    from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette
    from sdfsrn.training.sdf_srn import train

__all__ = [
    "AsyncClient",
    "Checkpoint",
    "Client",
    "Dataset",
    "FitConfig",
    "Picture",
    "ReconstructionConfig",
    "Reconstructor",
    "SdfSrnConfig",
    "SyntheticData",
    "View",
    "evaluate_model",
    "fit",
    "open_dataset",
    "ray_minimum",
    "read_captures",
    "read_picture",
    "save_dataset",
    "soft_silhouette",
    "train",
]

_HOMES = {
    "checkpoint": ("Checkpoint",),
    "client": ("AsyncClient", "Client"),
    "config": ("FitConfig", "ReconstructionConfig", "SdfSrnConfig", "SyntheticData", "View"),
    "data.captures": ("read_captures",),
    "data.dataset": ("Dataset", "open_dataset", "save_dataset"),
    "evaluation.protocol": ("evaluate_model",),
    "fits": ("fit",),
    "images": ("Picture", "read_picture"),
    "reconstruct": ("Reconstructor",),
    "rendering.silhouettes": ("ray_minimum", "soft_silhouette"),
    "training.sdf_srn": ("train",),
}
_HOME_OF = {name: f"sdfsrn.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sdfsrn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
