"""The files of a model in a folder, and transformers kept quiet while it is loaded."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from rag_opt.records.keys import compute_key

WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
"""Endings of the files that decide what a local model gives."""


def hash_weights(model: str) -> str | None:
    """The hash of a local model's files, which may change under the same name; None for a model of the hub."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS)
    return _hash_files(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


# Within a process a file is known by its size and time, so that gigabytes are read once.
@cache
def _hash_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    digests = []
    for path, _, _ in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return compute_key(digests)


def quiet_transformers() -> None:
    """No bars and load reports from transformers: they tear the study's own line apart."""
    from transformers.utils import logging as messages

    messages.set_verbosity_error()
    messages.disable_progress_bar()
