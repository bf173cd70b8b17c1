"""How much of what was to be measured was: questions that came through, stages that were served by their models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rag_opt.metrics.catalogue import BatchResult
    from rag_opt.records.documents import Scores
    from rag_opt.records.scores import Evaluation


class UncoveredError(ValueError):
    """Too few questions were measured, or served by a stage: calls to a model may have failed for the others."""


def compute_coverage(values: Scores, applies: NDArray[np.bool_]) -> float:
    """The share that was measured of the queries that could be; 1 where none could."""
    return float((~np.isnan(values[applies])).mean()) if applies.any() else 1.0


def compute_served(parts: Sequence[BatchResult]) -> dict[str, float]:
    """By stage of the pipeline the share of what it asked a model for that came; 1 where it asked for nothing."""
    found: dict[str, tuple[int, int]] = {}
    for part in parts:
        for stage, spent in part.usage.items():
            asked, lost = found.get(stage, (0, 0))
            found[stage] = asked + int(np.sum(spent.asked)), lost + int(np.sum(spent.lost))
    # A stage that asked for nothing lost nothing.
    return {stage: 1.0 - lost / max(1, asked) for stage, (asked, lost) in found.items()}


def check_served(evaluation: Evaluation, least: float) -> None:
    """Raise UncoveredError where a stage did less than this share of its work: its configuration was not measured."""
    for stage, share in evaluation.served.items():
        if share < least:
            raise UncoveredError(
                f"{stage} got {share:.0%} of what it asked its model for and went on without the rest, "
                f"evaluation.coverage asks for {least:.0%}"
            )
