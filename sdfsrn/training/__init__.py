"""Methods of learning shape from silhouettes, one file each; `METHODS` is the table of them."""

import importlib
from collections.abc import Callable
from typing import Any

# method -> the module whose `train` runs it; its configuration stands in sdfsrn.config.METHODS under the same name
METHODS = {"sdf_srn": "sdfsrn.training.sdf_srn"}


class TrainingCollapsed(RuntimeError):
    """The field became empty or full and cannot recover."""


class Interrupted(Exception):
    """Raised by a `progress` callback: stop here in good order, leave a checkpoint, to go on another time."""


def trainer(method: str) -> Callable[..., dict[str, Any]]:
    """The `train` function of a method. Raises ValueError for one that does not exist."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    train: Callable[..., dict[str, Any]] = importlib.import_module(METHODS[method]).train
    return train
