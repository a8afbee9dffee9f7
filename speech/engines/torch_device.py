"""Devices and precisions of torch, for the engines that run on it."""

from typing import Any

from speech.errors import ModelError, first_line


def choose_device(model: str, wanted: str) -> Any:
    """The device; ``auto`` is the best there is. Raises ModelError for one that this machine lacks."""
    import torch

    if wanted == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model {model}: this machine has no device {wanted!r}: {first_line(error)}"
        ) from error
    return device


def name_of(device: Any) -> str:
    """What a price list calls it: a GPU by its maker's name, else the kind of device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def dtype_of(precision: str, device: Any) -> Any:
    """The type of numbers: ``auto`` is float16 on CUDA and float32 elsewhere."""
    import torch

    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    return getattr(torch, precision)
