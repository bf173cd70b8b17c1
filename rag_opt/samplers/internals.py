"""What Optuna keeps to itself and this program needs: touched here, and nowhere else but in rag_opt/samplers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

# Those with an underscore belong to it: the cache that Optuna wraps a database in calls them on the storage itself.
ASKING = (*BaseStorage.__abstractmethods__, "_create_new_trial", "_set_trial_param", "_get_trials")
"""The methods of a database storage that go to the database."""

TELLING = "set_trial_state_values"
"""The one of them that ends a trial."""


def get_backend(study: optuna.Study) -> Any:
    """The storage that the study lies in: Optuna wraps one of a database in a cache."""
    return getattr(study._storage, "_backend", study._storage)


def get_study_id(study: optuna.Study) -> int:
    """The study's number in its storage."""
    return study._study_id


def get_trial_id(trial: optuna.Trial) -> int:
    """The trial's number in its storage, among those of all studies."""
    return trial._trial_id


def get_enqueued_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The parameters that a trial was enqueued with; {} for one that was drawn."""
    found: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return found


def fail_trial(study: optuna.Study, trial: FrozenTrial, about: Mapping[str, Any]) -> None:
    """Have a trial of any process end as failed, with these user attributes; one that has ended stays as it is.

    Not told to the sampler: one that stops the study by itself may do so only where a trial was measured.
    """
    with suppress(UpdateFinishedTrialError):
        # Attributes first: Optuna takes none for a trial that has ended.
        for key, value in about.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def get_system_attrs(study: optuna.Study) -> Mapping[str, Any]:
    """What Optuna, its samplers and optuna-dashboard keep with the study."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_system_attrs(study: optuna.Study, values: Mapping[str, Any]) -> None:
    """Keep these beside them, in place of what is there."""
    for key, value in values.items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether the distribution gives this number, or choice."""
    try:
        # An unknown choice, or a text for a number, has no internal form and raises; a number out of range has one.
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


@contextmanager
def allow_stop(study: optuna.Study) -> Iterator[None]:
    """Let a sampler or callback call study.stop(), which Optuna allows only inside its own loop."""
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False


def is_stopped(study: optuna.Study) -> bool:
    """Whether a sampler has said that there is nothing left to try."""
    return bool(study._stop_flag)
