"""Metrics of other libraries as functions of cases: Haystack's evaluators, MLflow's scorers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.console.progress import report_line

if TYPE_CHECKING:
    from rag_opt.metrics.own import Case
    from rag_opt.records.documents import Scores

WORDS = {"yes": 1.0, "true": 1.0, "pass": 1.0, "no": 0.0, "false": 0.0, "fail": 0.0}
"""What judges say in place of numbers."""

INPUTS: dict[str, Callable[[Case], Any]] = {
    "questions": lambda case: case.question,
    "contexts": lambda case: list(case.contexts),
    "predicted_answers": lambda case: case.answer or "",
    "ground_truth_answers": lambda case: case.references[0] if case.references else "",
}
"""What an evaluator of Haystack is given, by the name of its socket."""


def score_with_evaluator(name: str, evaluator: Any, cases: Sequence[Case]) -> Scores:
    """The `individual_scores` of a Haystack evaluator, float64; nan where there is no answer, or it fails as a whole.

    Of several reference answers it is given the first. Raises ValueError at a socket that has no counterpart here.
    """
    sockets = evaluator.__haystack_input__._sockets_dict
    wanted = [socket for socket in sockets if socket in INPUTS]
    lacking = [socket for socket, about in sockets.items() if about.is_mandatory and socket not in INPUTS]
    if lacking:
        raise ValueError(
            f"{name}: {type(evaluator).__name__} wants {', '.join(lacking)}; known are {', '.join(INPUTS)}"
        )
    values = np.full(len(cases), np.nan)
    needs = "predicted_answers" in wanted
    known = [row for row, case in enumerate(cases) if case.answer is not None or not needs]
    if not known:
        return values
    try:
        found = evaluator.run(**{socket: [INPUTS[socket](cases[row]) for row in known] for socket in wanted})
        scores = [parse_verdict(each) for each in found["individual_scores"]]
        # NumPy would spread a single score over all questions.
        if len(scores) != len(known):
            raise ValueError(f"{len(scores)} scores for {len(known)} questions")  # noqa: TRY301 (as any other failure)
        values[known] = scores
    except Exception as error:
        # Whatever an evaluator or its model raises or leaves out: these questions are unmeasured.
        report_line(f"{name}: {len(known)} questions unmeasured: {type(error).__name__}: {error}"[:300])
    return values


def wrap_scorer(scorer: Any) -> Callable[[Case], float | None]:
    """An MLflow scorer as a function of a case: `inputs` hold the question, `expectations` the reference answers."""

    def value(case: Case) -> float | None:
        if case.answer is None:
            return None
        found = scorer.run(
            inputs={"question": case.question, "context": "\n\n".join(case.contexts)},
            outputs=case.answer,
            expectations={"expected_response": case.references[0] if case.references else ""},
            trace=None,
        )
        # A scorer gives MLflow's Feedback or the bare value, as it likes.
        found = getattr(found, "value", found)
        return None if found is None else parse_verdict(found)

    return value


def parse_verdict(value: Any) -> float:
    """A verdict as a number; nan where it is none."""
    if isinstance(value, str):
        return WORDS.get(value.strip().lower(), math.nan)
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
