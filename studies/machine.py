"""The machine that a study's figures were measured on."""

import os
import platform
from pathlib import Path


def describe_processor() -> str:
    """The processor by its name, and its cores."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor()}, {os.cpu_count()} cores"
