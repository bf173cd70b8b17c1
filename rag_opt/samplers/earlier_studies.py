"""Studies that were run before, to learn from: their trials as they were when the present study began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from rag_opt.samplers.internals import contains
from rag_opt.samplers.observations import select_informative


class EarlierStudy(NamedTuple):
    """An earlier study: its own directions, and the trials that say something."""

    directions: Sequence[StudyDirection]
    trials: Sequence[FrozenTrial]

    def select_within(self, search_space: Mapping[str, BaseDistribution]) -> EarlierStudy:
        """With the trials alone whose configurations, less what this space lacks, are of this space."""
        return self._replace(trials=[trial for trial in self.trials if _is_possible(trial, search_space)])

    @property
    def names(self) -> set[str]:
        """The parameters that any of its trials has."""
        return {name for trial in self.trials for name in trial.params}


# Every draw asks for it, and what had ended by `until` does not change.
@lru_cache(16)
def load_earlier(storage: str, study_name: str, until: datetime | None) -> EarlierStudy:
    """The study with what was finished by then (None: now); raises what Optuna does where it can't be read.

    Read once in a process: None means the time of its first call there.
    """
    study = optuna.load_study(study_name=study_name, storage=storage)
    trials = select_informative(study.get_trials(deepcopy=False))
    ended = [t for t in trials if until is None or (t.datetime_complete is not None and t.datetime_complete <= until)]
    return EarlierStudy(study.directions, ended)


def _is_possible(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> bool:
    # A number beyond this space's range would be taken for its end, which nobody has measured.
    return all(contains(search_space[name], value) for name, value in trial.params.items() if name in search_space)


def parse_earlier(earlier: Any) -> list[tuple[str, str]]:
    """Storage and name of each earlier study; raises TypeError or ValueError where not given so."""
    if not isinstance(earlier, list | tuple):
        raise TypeError(f"earlier={earlier}: a list of studies is expected, each with its storage and study_name")
    for each in earlier:
        if not isinstance(each, Mapping) or set(each) != {"storage", "study_name"}:
            raise ValueError(f"earlier: {each}: a storage and a study_name are expected")
    return [(str(each["storage"]), str(each["study_name"])) for each in earlier]
