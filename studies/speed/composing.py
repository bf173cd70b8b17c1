"""How long composing a trial takes with config/hydra_patches.py, and without what that changes in OmegaConf.

python studies/speed/composing.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from omegaconf import AnyNode, base
from omegaconf.base import Metadata

OWN_COPY, OWN_PARSE = AnyNode.__deepcopy__, vars(base)["parse"]

from rag_opt.config.trial import compose_trial  # noqa: E402 (it changes them)

sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe_processor  # noqa: E402 (it lies beside the folders of studies)

WORDS = ["retriever=hybrid", "generator=extractive", "embedder=hashing", "splitter=recursive"]
COUNT = 100


def measure(first: int) -> float:
    """Milliseconds of a configuration that differs from those before by a value; the files were composed already."""
    compose_trial([*WORDS, f"retriever.depth={first}"])
    start = time.perf_counter()
    for number in range(1, COUNT + 1):
        compose_trial([*WORDS, f"retriever.depth={first + number}"])
    return (time.perf_counter() - start) / COUNT * 1e3


def main() -> None:
    ours = measure(1_000)
    base.parse = OWN_PARSE  # type: ignore[attr-defined]
    AnyNode.__deepcopy__ = OWN_COPY  # type: ignore[method-assign]
    del Metadata.__deepcopy__  # type: ignore[attr-defined]
    without = measure(2_000)
    print(f"{ours:.1f} ms, without {without:.1f} ms: {without / ours:.1f} times as long ({describe_processor()})")


if __name__ == "__main__":
    main()
