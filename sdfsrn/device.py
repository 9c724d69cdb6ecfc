"""Which device computes."""

import os

import torch


def pick_device(name: str = "auto") -> torch.device:
    """The named device; "auto" is $SDFSRN_DEVICE or else the first there is of CUDA, MPS (unverified) and CPU.

    Raises ValueError for a device that this machine does not have.
    """
    wanted = os.environ.get("SDFSRN_DEVICE", "auto") if name == "auto" else name
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {wanted!r} is not usable on this machine; use auto, cuda, mps or cpu") from error
    return torch.device(wanted)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Of work that bears low precision: bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
