"""Metrics of other libraries as functions of cases: Haystack's evaluators, MLflow's scorers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from rag_opt.components.hosts import is_loopback
from rag_opt.console.screens import report_line
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.metrics.metering import Meter, Price, meter_generator, read_feedback
from rag_opt.metrics.own import apply_function

if TYPE_CHECKING:
    from rag_opt.metrics.own import Case
    from rag_opt.records.documents import Scores

WORDS = {"yes": 1.0, "true": 1.0, "pass": 1.0, "no": 0.0, "false": 0.0, "fail": 0.0}
"""What judges say in place of numbers."""

GENERATOR = "_chat_generator"
"""Where Haystack's evaluators have what they ask a model with."""

INPUTS: dict[str, Callable[[Case], Any]] = {
    "questions": lambda case: case.question,
    "contexts": lambda case: list(case.contexts),
    "predicted_answers": lambda case: case.answer or "",
    "ground_truth_answers": lambda case: case.references[0] if case.references else "",
}
"""What an evaluator of Haystack is given, by the name of its socket."""


def get_model(made: Any) -> str | None:
    """The name of the model that an evaluator or a scorer asks; "" where it tells none, None where it asks none."""
    generator = getattr(made, GENERATOR, None)
    if generator is None and not hasattr(made, "model"):
        return None
    # MLflow names the provider before it: openai:/gpt-4o-mini.
    return str(getattr(generator, "model", getattr(made, "model", None)) or "").rpartition(":/")[2]


def get_price(made: Any, prices: Mapping[str, Price]) -> Price:
    """What its calls cost: nothing by an endpoint on this machine; None where no price is known."""
    address = getattr(getattr(made, GENERATOR, None), "api_base_url", None)
    if isinstance(address, str) and is_loopback(urlsplit(address).hostname or ""):
        return {"in": 0.0, "out": 0.0}
    return prices.get(get_model(made) or "")


def score_with_evaluator(evaluator: Any, cases: Sequence[Case], meter: Meter) -> Scores:
    """The `individual_scores` of a Haystack evaluator, float64; nan where there is no answer, or it fails as a whole.

    Of several reference answers it is given the first. What it asks a chat generator for is paid. Raises ValueError at
    a socket that has no counterpart here, BudgetSpentError where nothing more may be paid for.
    """
    name = meter.name
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
    about, generator = [cases[row] for row in known], getattr(evaluator, GENERATOR, None)
    if meter.llm.rehearsal is not None:
        if generator is not None:
            meter.rehearse(about)
        return values
    metered = nullcontext() if generator is None else meter_generator(generator, meter, about)
    try:
        with metered:
            found = evaluator.run(**{socket: [INPUTS[socket](case) for case in about] for socket in wanted})
        scores = [parse_verdict(each) for each in found["individual_scores"]]
        # NumPy would spread a single score over all questions.
        if len(scores) != len(known):
            raise ValueError(f"{len(scores)} scores for {len(known)} questions")  # noqa: TRY301 (as any other failure)
        values[known] = scores
    except BudgetSpentError:
        raise
    except Exception as error:
        # Whatever an evaluator or its model raises or leaves out: these questions are unmeasured.
        report_line(f"{name}: {len(known)} questions unmeasured: {type(error).__name__}: {error}"[:300])
    return values


def score_with_scorer(scorer: Any, cases: Sequence[Case], meter: Meter) -> Scores:
    """What an MLflow scorer gives for each case, float64; nan where there is no answer, or it fails.

    `inputs` hold the question, `expectations` the first of the reference answers. What it asks its model for is paid.
    Raises BudgetSpentError where nothing more may be paid for.
    """
    asks = get_model(scorer) is not None
    if meter.llm.rehearsal is not None:
        if asks:
            meter.rehearse([case for case in cases if case.answer is not None])
        return np.full(len(cases), np.nan)

    def value(case: Case) -> float | None:
        if case.answer is None:
            return None
        if asks:
            meter.llm.check_budget()
        start = time.perf_counter()
        # `expected_response` is where MLflow's own scorers look for a reference answer.
        found = scorer.run(
            inputs={"question": case.question, "context": "\n\n".join(case.contexts)},
            outputs=case.answer,
            expectations={"expected_response": case.references[0] if case.references else ""},
            trace=None,
        )
        told = read_feedback(found)
        if asks or told is not None:
            tokens, usd = told or ((0, 0), None)
            meter.pay(case, tokens, time.perf_counter() - start, usd)
        # A scorer gives MLflow's Feedback or the bare value, as it likes.
        found = getattr(found, "value", found)
        return None if found is None else parse_verdict(found)

    return apply_function(meter.name, value, cases)


def parse_verdict(value: Any) -> float:
    """A verdict as a number; nan where it is none."""
    if isinstance(value, str):
        return WORDS.get(value.strip().lower(), math.nan)
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
