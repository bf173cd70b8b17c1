"""Where a model runs: on the GPU that is there, or on what is named, which has to be there."""

from __future__ import annotations

import re

from rag_opt.components.models.speed import get_device
from rag_opt.errors import ComponentError

AUTO = "auto"
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def find_device(where: str, wanted: str) -> str:
    """The device by PyTorch's name; `auto` is the GPU where there is one. Raises ComponentError for one not there.

    `where` names the group of the configuration that wants it.
    """
    if wanted == AUTO:
        return get_device()
    why = _explain_absent(wanted)
    if why:
        raise ComponentError(f"{where}.device={wanted}: {why}; choose {where}.device=auto, which takes what is there")
    return wanted


def _explain_absent(wanted: str) -> str:
    """Why PyTorch can't use this device here; "" where it can."""
    import torch

    kind, _, number = wanted.partition(":")
    if kind == "cpu":
        return ""
    if kind == "mps":
        return "" if torch.backends.mps.is_available() else "this PyTorch finds no GPU of Apple's here"
    # Builds for AMD (ROCm) call their GPUs cuda, too, and have a hip version instead.
    if torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch was built without GPUs; install the build for yours (pytorch.org tells which)"
    count = torch.cuda.device_count()
    if count <= int(number or 0):
        return f"GPUs that this PyTorch finds here: {count}"
    return ""
