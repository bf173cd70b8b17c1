"""A metric of the user's own: one function, named in an objective's file."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.console.screens import report_line
from rag_opt.errors import MetricError
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores

KINDS = ("function", "evaluator", "scorer")
"""What may measure: a function of a case, a Haystack evaluator, an MLflow scorer."""

KEYS = (*KINDS, "direction", "needs")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
NEEDS = ("", "qrels", "answers", "evidence", "generator")


@dataclass(frozen=True)
class Case:
    """One question with what the pipeline made of it: what a metric's function is given.

    `answer` is None without a generator; `contexts` are the texts of the chunks that are handed on, `documents` their
    documents' ids, best first; `references` and `relevant` (document id → grade) are the dataset's.
    """

    question: str
    answer: str | None
    references: tuple[str, ...]
    contexts: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: Mapping[str, int]


Function = Callable[[Case], float | None]

GIVEN: ContextVar[Mapping[str, Function]] = ContextVar("GIVEN", default=MappingProxyType({}))
"""The functions that were given in Python; an objective names them rag_opt.given.<name>."""

BEHIND = "rag_opt.given."


def get_given(name: str, function: str) -> Function | None:
    """The Python function of this name, None for one that is imported; raises MetricError where it was not given."""
    if not function.startswith(BEHIND):
        return None
    found = GIVEN.get().get(function.removeprefix(BEHIND))
    if found is None:
        raise MetricError(
            f"objective.own.{name}: {function} was given to rag_opt.optimize in Python, which this command can't know; "
            "go on from Python, or put the function into a module and name that"
        )
    return found


def apply_function(name: str, function: Function, cases: Sequence[Case]) -> Scores:
    """The function's value for each case, float64; nan, unmeasured, where it gives None or nan or raises."""
    found, failed = np.full(len(cases), np.nan), []
    for row, case in enumerate(cases):
        try:
            found[row] = _to_number(function(case))
        except BudgetSpentError:
            raise
        except Exception as error:
            # Whatever a user's function raises: this question is unmeasured, and that is counted.
            failed.append(f"{type(error).__name__}: {error}")
    if failed:
        report_line(f"{name}: {len(failed)} of {len(cases)} questions unmeasured; the first: {failed[0][:200]}")
    return found


def _to_number(value: Any) -> float:
    # float() would read "0.3"; a function that gives texts is mistaken, and should hear of it.
    if isinstance(value, str | bytes):
        raise TypeError(f"{value[:40]!r} is a text; a number, or None, is expected")
    return math.nan if value is None else float(value)


def parse_own_metric(name: str, node: Any) -> tuple[str, str, str]:
    """A file's entry as (kind, direction, needs); raises MetricError saying what is wrong with it."""
    kinds = [kind for kind in KINDS if kind in node] if isinstance(node, dict) else []
    if (
        len(kinds) != 1
        or set(node) - set(KEYS)
        or not isinstance(node[kinds[0]], dict if kinds[0] != "function" else str)
    ):
        raise MetricError(
            f"objective.own.{name}: expected are function: <module>.<function> (or evaluator: / scorer: with a "
            f"_target_), direction and needs, not {node}"
        )
    direction, needs = node.get("direction", "maximize"), node.get("needs", "")
    if direction not in ("maximize", "minimize"):
        raise MetricError(f"objective.own.{name}.direction: '{direction}' is neither maximize nor minimize")
    if needs not in NEEDS:
        raise MetricError(f"objective.own.{name}.needs: '{needs}' is none of {', '.join(filter(None, NEEDS))}")
    return kinds[0], direction, needs


def hash_function(function: Function) -> str:
    """The hash of a function's source, so that scores of another version are not compared; else of its repr."""
    try:
        return compute_key(inspect.getsource(function))
    except (OSError, TypeError):
        # An address is another one in each process, and would refuse every resumed study.
        return compute_key(ADDRESS.sub("", repr(function)))
