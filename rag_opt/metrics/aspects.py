"""What a judge grades, from 1 to 5, and what it is shown for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORST, BEST = 1, 5
FIELDS = {
    "correctness": ("question", "reference", "answer"),
    "faithfulness": ("documents", "question", "answer"),
    "context_relevance": ("documents", "question"),
    "answer_relevance": ("question", "answer"),
}
"""What each judge is shown. Correctness is graded as in mlflow's answer_correctness: against a reference."""


@dataclass(frozen=True)
class Shown:
    """What is known of a question when its answer is judged; `answer` None where there is none."""

    question: str
    references: tuple[str, ...]
    answer: str | None
    documents: Sequence[str]
