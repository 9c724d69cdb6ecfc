"""Tensors by name, and what they say of themselves, from one safetensors file: nothing in it is executed."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor


def read_tensors(path: Path, form: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file whose metadata says that it has this format. Raises ValueError for any other."""
    try:
        with safe_open(path, framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is not a readable safetensors file: {error}") from error
    if metadata.get("format") != form:
        raise ValueError(f"{path.name} has format {metadata.get('format')!r}, expected {form!r}")
    return metadata, tensors
