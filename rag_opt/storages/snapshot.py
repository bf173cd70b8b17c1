"""The trials of a study at one moment, and which of them count."""

from __future__ import annotations

from collections.abc import Container
from copy import copy

import optuna
from optuna.trial import FrozenTrial, TrialState

from rag_opt.samplers.internals import get_enqueued_params
from rag_opt.storages.attributes import get_attributes

# FAIL counts: a configuration that failed by itself has taken its place. What failed for reasons outside of it is noted
# as interrupted, and another trial takes that place.
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StudySnapshot:
    """A study as it is now, to be asked many things without going to the storage for each, and to stay as it is.

    Or as it was when it had so many trials, of which these were unfinished.
    """

    def __init__(self, study: optuna.Study, trials: int | None = None, unfinished: Container[int] = ()) -> None:
        self.directions = study.directions
        self.user_attrs = study.user_attrs
        # Numbers are given in the order of asking, so what was added since then is at the end.
        now = study.get_trials(deepcopy=False)[:trials]
        self._trials = [_strip_result(trial) if trial.number in unfinished else trial for trial in now]

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The trials that are waiting or under way."""
        return tuple(trial.number for trial in self._trials if not trial.state.is_finished())

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As a study's; never copied."""
        del deepcopy
        return [trial for trial in self._trials if states is None or trial.state in states]


def _strip_result(trial: FrozenTrial) -> FrozenTrial:
    """The trial without how it ended."""
    # Without deepcopy these are the storage's own cached records, which nobody may change.
    begun = copy(trial)
    begun.state, begun.values, begun.user_attrs = TrialState.RUNNING, None, {}
    return begun


Trials = optuna.Study | StudySnapshot


def count_finished(study: Trials) -> int:
    """Finished trials that count: what n_trials is compared with.

    Those of stopped processes don't, nor do configurations that were given up.
    """
    finished = map(get_attributes, study.get_trials(deepcopy=False, states=FINISHED))
    return sum(not noted.interrupted and not noted.given_up for noted in finished)


def is_sampled(trial: FrozenTrial) -> bool:
    """Whether all its parameters are there: its origin is noted after the last one, a seed's when it is enqueued."""
    return bool(get_attributes(trial).origin and trial.params) and set(get_enqueued_params(trial)) <= set(trial.params)
