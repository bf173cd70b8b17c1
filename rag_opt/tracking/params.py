"""A trial's configuration as MLflow has parameters: dotted keys, and the prompts among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_opt.config import yaml_files


def find_prompts(values: Mapping[str, Any]) -> set[str]:
    """The names of the prompts among a trial's parameters."""
    return {value for key, value in values.items() if key.endswith(".prompt") and isinstance(value, str)}


def read_flat_file(path: Path) -> dict[str, Any]:
    """The values of a configuration file by their dotted keys; {} when the file is not there."""
    flat: dict[str, Any] = {}
    waiting = [("", yaml_files.read_yaml(path))] if path.exists() else []
    while waiting:
        prefix, node = waiting.pop()
        for key, value in node.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat


def to_milliseconds(moment: Any) -> int:
    """A moment as MLflow counts, 0 for none."""
    return int(moment.timestamp() * 1000) if moment is not None else 0


def format_metric_name(name: str) -> str:
    """The name as MLflow allows it: nDCG@10 → nDCG_at_10."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"))
