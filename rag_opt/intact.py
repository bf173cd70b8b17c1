"""Whether a study's database holds what this program writes: it may come from elsewhere, and all is made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from rag_opt.errors import StorageError
from rag_opt.records import SPENT


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_number(each) for each in value.values())


def _texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_text, value.values()))


def _spending(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_numbers(each) and {*SPENT} <= {*each} for each in value.values())


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _timings(value: Any) -> bool:
    """Pairs of parameters and seconds."""
    pairs = isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value)
    return pairs and all(_values(params) and _numbers(seconds) for params, seconds in value)


def _values(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(isinstance(each, list | Mapping) for each in value.values())


OF_TRIALS: Mapping[str, Callable[[Any], bool]] = {
    "origin": _text,
    "command": _text,
    "reason": _text,
    "metrics": _numbers,
    "seconds": _numbers,
    "paid": _numbers,
    "coverage": _numbers,
    "usage": _spending,
    "repeats": _number,
    "questions": _number,
    "process": _texts,
    "retries": _number,
    "seed": _number,
    "deaths": _number,
    "earlier_deaths": _number,
    "so_far": lambda value: isinstance(value, list) and all(map(_number, value)),
}
OF_STUDIES: Mapping[str, Callable[[Any], bool]] = {
    "rag_opt:fingerprints": lambda value: isinstance(value, Mapping),
    "rag_opt:fingerprint_parts": lambda value: (
        isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values())
    ),
    "rag_opt:sampler_state": lambda value: isinstance(value, Mapping),
    "rag_opt:looks": lambda value: isinstance(value, list) and all(map(_number, value)),
    "rag_opt:report_artifact": _text,
    "rag_opt:ledger": _text,
    "stored": _timings,
}
"""The attributes that are read, and whether a value is such as is written."""


def check_study(study: optuna.Study, where: object) -> None:
    """Raise StorageError unless all trials of a study can be read, and every attribute has the form it is given."""
    try:
        trials = study.get_trials(deepcopy=False)
        wrong = [f"study: {key}" for key in _odd(OF_STUDIES, study.user_attrs)]
    except (
        sqlalchemy.exc.SQLAlchemyError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:
        # What Optuna raises for a value, a distribution or a state that it would not have written.
        reason = (str(error).splitlines() or [""])[0][:200]
        raise _foreign(where, f"{type(error).__name__}: {reason}") from error
    wrong += [f"trial {trial.number}: {key}" for trial in trials for key in _odd(OF_TRIALS, trial.user_attrs)]
    measures = len(study.directions)
    wrong += [f"trial {trial.number}: its values" for trial in trials if not _valued(trial, measures)]
    if wrong:
        raise _foreign(where, wrong[0])


def _odd(forms: Mapping[str, Callable[[Any], bool]], attributes: Mapping[str, Any]) -> list[str]:
    return [key for key, value in attributes.items() if key in forms and not forms[key](value)]


def _valued(trial: FrozenTrial, measures: int) -> bool:
    """Whether a complete trial has a number for each objective, and another one none that is no number."""
    values = trial.values or ()
    return all(map(_number, values)) and (trial.state != TrialState.COMPLETE or len(values) == measures)


def _foreign(where: object, what: str) -> StorageError:
    return StorageError(
        f"{where}: the study's database holds what this program does not write ({what}); put a backup in its place, "
        "or start another study: name=<new name>"
    )
