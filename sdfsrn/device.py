"""Which device computes."""

import os

import torch

FAST_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


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
    """Of work that bears low precision: bfloat16 where the device multiplies it natively, else float32.

    $SDFSRN_FAST_DTYPE, "bfloat16" or "float32", goes before that: with float32 a machine that has bfloat16 computes as one
    that has not, and can measure what users of such machines get. Raises ValueError for any other value.
    """
    wanted = os.environ.get("SDFSRN_FAST_DTYPE", "")
    if wanted:
        if wanted not in FAST_DTYPES:
            raise ValueError(f"SDFSRN_FAST_DTYPE must be one of {', '.join(FAST_DTYPES)}, got {wanted!r}")
        return FAST_DTYPES[wanted]
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
