"""Whether a study's database holds what this program writes: it may come from elsewhere, and all is made from it."""

from __future__ import annotations

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from rag_opt.errors import StorageError, get_first_line
from rag_opt.storages.attributes import StudyAttributes, TrialAttributes, is_number


def check_study(study: optuna.Study, where: object) -> None:
    """Raise StorageError unless all trials of a study can be read, and every attribute has the form it is given."""
    try:
        trials = study.get_trials(deepcopy=False)
        wrong = [f"study: {key}" for key in StudyAttributes.find_invalid(study.user_attrs)]
    except (
        sqlalchemy.exc.SQLAlchemyError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:
        # What Optuna raises for a value, a distribution or a state that it would not have written.
        raise _build_error(where, f"{type(error).__name__}: {get_first_line(error)}") from error
    wrong += [
        f"trial {trial.number}: {key}" for trial in trials for key in TrialAttributes.find_invalid(trial.user_attrs)
    ]
    measures = len(study.directions)
    wrong += [f"trial {trial.number}: its values" for trial in trials if not _has_valid_values(trial, measures)]
    if wrong:
        raise _build_error(where, wrong[0])


def _has_valid_values(trial: FrozenTrial, measures: int) -> bool:
    """Whether a complete trial has a number for each objective, and another one none that is no number."""
    values = trial.values or ()
    return all(map(is_number, values)) and (trial.state != TrialState.COMPLETE or len(values) == measures)


def _build_error(where: object, what: str) -> StorageError:
    return StorageError(
        f"{where}: the study's database holds what this program does not write ({what}); put a backup in its place, "
        "or start another study: name=<new name>"
    )
