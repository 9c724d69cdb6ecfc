"""What a checkpoint file says of itself, read without torch and without trusting it: the service looks before it keeps one.

A safetensors file is the length of its header in 8 bytes, the header as JSON, then the tensors' bytes (the format's
description). Nothing in it is executed.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

FORMAT = "sdfsrn-1"
MAX_HEADER = 1_000_000
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
# What rendering and cropping divide by: outside these ranges a picture would become gigabytes.
_FACTS = {
    "step": (0, 1e12),
    "temperature": (1e-4, 1.0),
    "mask_radius": (0.02, 0.75),
    "camera_distance": (1.1, 100.0),
    "fovy_deg": (1.0, 170.0),
}
# older checkpoints do not say them
_LATER = {"lowest_deg": (-90.0, 90.0), "highest_deg": (-90.0, 90.0), "tile_radius": (0.02, 0.75)}
_OTHER_FACTS = {"method": str, "config": dict, "data": dict, "dataset_digest": str}
_SIZES = {"latent_dim": (2, 1024), "hidden_dim": (16, 1024)}


@dataclass(frozen=True)
class FileFacts:
    """SHA-256 of the file, and `latent_dim`, `hidden_dim` and `symmetry` of its networks."""

    digest: str
    networks: dict[str, Any]


def read_facts(data: bytes) -> FileFacts:
    """The facts of a checkpoint's bytes. Raises ValueError that says why they are no checkpoint of this service."""
    header = _header(data)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"the file is safetensors, but no checkpoint of format {FORMAT}")
    networks = _networks(metadata.get("model"))
    _check_facts(metadata.get("facts"))
    _check_tensors(header, len(data) - 8 - int.from_bytes(data[:8], "little"), networks)
    return FileFacts(hashlib.sha256(data).hexdigest(), networks)


def without_state(data: bytes) -> bytes:
    """The same checkpoint without its `state.` tensors, which only resuming a training needs: as it is served.

    Raises ValueError for bytes that are no safetensors file.
    """
    header = _header(data)
    metadata = header.pop("__metadata__", {})
    begin = 8 + int.from_bytes(data[:8], "little")
    kept: dict[str, Any] = {"__metadata__": metadata}
    content: list[bytes] = []
    size = 0
    try:
        weights = {name: tensor for name, tensor in header.items() if not name.startswith("state.")}
        for name, tensor in sorted(weights.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = tensor["data_offsets"]
            content.append(data[begin + start : begin + end])
            kept[name] = tensor | {"data_offsets": [size, size + len(content[-1])]}
            size += len(content[-1])
    except (TypeError, KeyError, ValueError):
        raise ValueError("the file is no safetensors file: its tensors are not described") from None
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for tensors that are aligned
    return b"".join([len(text).to_bytes(8, "little"), text, *content])


def network_shapes(latent_dim: int, hidden_dim: int, view_head: bool = False) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of the networks of these sizes."""
    channels = (3, 32, 64, 128, 256)
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        shapes[f"encoder.convolutions.{2 * i}.weight"] = (channels[i + 1], channels[i], 3, 3)
        shapes[f"encoder.convolutions.{2 * i}.bias"] = (channels[i + 1],)
    linear = {
        "encoder.head.0": (256, 4096, True),
        "encoder.head.2": (latent_dim, 256, True),
        **({"encoder.view": (37, 256, True)} if view_head else {}),
        "decoder.point_in": (hidden_dim, 3, False),
        "decoder.latent_in": (hidden_dim, latent_dim, True),
        "decoder.second": (hidden_dim, hidden_dim, True),
        "decoder.third": (hidden_dim, hidden_dim, False),
        "decoder.point_skip": (hidden_dim, 3, False),
        "decoder.latent_skip": (hidden_dim, latent_dim, True),
        "decoder.fourth": (hidden_dim, hidden_dim, True),
        "decoder.out": (1, hidden_dim, True),
    }
    for name, (rows, columns, has_bias) in linear.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if has_bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or length > min(MAX_HEADER, len(data) - 8):
        raise ValueError("the file is no safetensors file: its header does not fit in it, or is too long")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError("the file is no safetensors file: its header is no JSON object")
    return header


def _networks(described: Any) -> dict[str, Any]:
    try:
        networks = json.loads(described)
        sizes = {name: networks[name] for name in _SIZES}
    except (TypeError, KeyError, ValueError, RecursionError):
        raise ValueError("the checkpoint does not say how large its networks are") from None
    for name, (low, high) in _SIZES.items():
        if type(sizes[name]) is not int or not low <= sizes[name] <= high:
            raise ValueError(f"the checkpoint's {name} must be a whole number in [{low}, {high}]")
    if unknown := set(networks) - {*_SIZES, "symmetry", "view_head"}:
        raise ValueError(f"the checkpoint's networks have {sorted(unknown)[0]!r:.80}, of which nothing is known here")
    symmetry = networks.get("symmetry", "none")
    if symmetry not in ("none", "mirror"):
        raise ValueError("the checkpoint's symmetry must be none or mirror")
    if type(networks.get("view_head", False)) is not bool:
        raise ValueError("the checkpoint's view_head must be true or false")
    return {**sizes, "symmetry": symmetry, "view_head": networks.get("view_head", False)}


def _check_facts(described: Any) -> None:
    try:
        facts = json.loads(described)
        numbers = {name: facts[name] for name in _FACTS}
    except (TypeError, KeyError, ValueError, RecursionError):
        raise ValueError(f"the checkpoint must say its {', '.join(_FACTS)}") from None
    numbers |= {name: facts[name] for name in _LATER if name in facts}
    for name, number in numbers.items():
        low, high = (_FACTS | _LATER)[name]
        if type(number) not in (int, float) or not low <= number <= high:
            raise ValueError(f"the checkpoint's {name} must be a number in [{low:g}, {high:g}]")
    for name, value in facts.items():
        if name not in numbers and not isinstance(value, _OTHER_FACTS.get(name, ())):
            raise ValueError(f"the checkpoint's fact {name!r:.80} is not one of {', '.join(_OTHER_FACTS)}, or of another type")


def _check_tensors(header: dict[str, Any], room: int, networks: dict[str, Any]) -> None:
    """Every weight is there in its shape, and the tensors fill the file exactly."""
    expected = network_shapes(networks["latent_dim"], networks["hidden_dim"], networks.pop("view_head"))
    spans = []
    known: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, tensor in header.items():
        try:
            shape, dtype, (start, end) = tuple(tensor["shape"]), tensor["dtype"], tensor["data_offsets"]
            plain = isinstance(dtype, str) and len(shape) <= 8
            plain = plain and all(type(number) is int and 0 <= number < 1 << 40 for number in (*shape, start, end))
        except (TypeError, KeyError, ValueError):
            plain = False
        if not plain:
            raise ValueError(f"the checkpoint's tensor {name[:80]!r} is not described as safetensors describes one")
        if name.startswith("weights."):
            wanted = expected.pop(name.removeprefix("weights."), None)
            if shape != wanted or dtype not in _ITEM_BYTES or end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
                raise ValueError(f"the checkpoint's {name[:80]!r} is {dtype:.20} of shape {shape}, expected a float of {wanted}")
        elif name.startswith("known."):
            known[name.removeprefix("known.")] = (dtype, shape)
        elif not name.startswith("state."):
            raise ValueError(f"the checkpoint holds {name[:80]!r}, which is neither a weight nor a training's state")
        spans.append((start, end))
    if expected:
        raise ValueError(f"the checkpoint lacks {sorted(expected)[0]!r}")
    if known:
        _check_known(known, networks["latent_dim"])
    ends = [0, *(end for _, end in sorted(spans))]
    if [start for start, _ in sorted(spans)] != ends[:-1] or ends[-1] != room:
        raise ValueError("the checkpoint's tensors overlap, leave gaps or do not fill the file")


def _check_known(known: dict[str, tuple[str, tuple[int, ...]]], latent_dim: int) -> None:
    """All of `sdfsrn.familiarity.Familiarity` is there, each tensor in its shape; None stands for any number from 1 on."""
    pixels = 1024
    expected: dict[str, tuple[int | None, ...]] = {
        "code_mean": (latent_dim,),
        "code_precision": (latent_dim, latent_dim),
        "mask_mean": (pixels,),
        "mask_basis": (None, pixels),
        "centre": (3,),
        "spread": (3,),
        "scores": (None,),
    }
    if set(known) != set(expected):
        raise ValueError(f"the checkpoint's known.* tensors must be {', '.join(expected)}, got {', '.join(sorted(known))[:200]}")
    for name, (dtype, shape) in known.items():
        wanted = expected[name]
        fits = len(shape) == len(wanted) and all(n >= 1 if w is None else n == w for n, w in zip(shape, wanted, strict=True))
        if not fits or dtype not in _ITEM_BYTES:
            raise ValueError(f"the checkpoint's 'known.{name}' is {dtype:.20} of shape {shape}, expected a float of {wanted}")
