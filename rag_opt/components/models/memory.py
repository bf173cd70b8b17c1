"""Whether a model fits the memory that is free, said before it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from rag_opt.errors import ComponentError

GIB = 2**30

SPARE = 2**29
"""Bytes beside the weights: what a model reads and writes while it runs."""


def check_memory(where: str, folder: Path, bytes_each: int) -> None:
    """Raise ComponentError where a model's weights, of so many bytes a number, need more memory than is free."""
    needed = count_parameters(folder) * bytes_each + SPARE
    check_free(f"{where}: the model", needed, "free some, choose a smaller model, or llm.dtype=bfloat16")


def check_free(what: str, needed: int, advice: str) -> None:
    """Raise ComponentError where it needs more bytes than are free."""
    free = get_free_memory()
    if needed > free:
        raise ComponentError(
            f"{what} needs about {needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are free; {advice}"
        )


def count_parameters(folder: Path) -> int:
    """The numbers in a folder's .safetensors files, from their headers; 0 where there are none that can be read."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            # Whoever loads it says what is wrong with it.
            continue
    return count


def get_free_memory() -> float:
    """Bytes that a process may still take, as Linux estimates them; infinite elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return math.inf
    # Not MemFree, which leaves out the caches that Linux would give up.
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return math.inf if found is None else int(found) * 1024
