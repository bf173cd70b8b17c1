"""Trials that are ended before they were measured, so that another takes their place."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial

from rag_opt.samplers.internals import end, set_system_attributes, system_attributes
from rag_opt.storages.attributes import StudyAttributes, TrialAttributes, attributes_of, study_attributes
from rag_opt.storages.moment import drawn

QMC = "qmc:"
"""Prefix of the study attributes in which QMCSampler counts its points."""


def interrupt(
    study: optuna.Study, trial: FrozenTrial, retries: int | None = None, told: Mapping[str, str] | None = None
) -> None:
    """End a trial whose place is to be taken again; one that has ended meanwhile stays as it is.

    With `retries` its process died: after so many repeated deaths over a configuration that is given up. `told`:
    attributes that say why it is ended.
    """
    deaths = attributes_of(trial).earlier_deaths + (retries is not None)
    given_up = retries is not None and deaths > retries
    reason = "its process was stopped" if retries is None else "its process died"
    if given_up:
        reason = f"given up: its process died {deaths} times over this configuration (retries={retries})"
    ending = TrialAttributes.given_up if given_up else TrialAttributes.interrupted
    about = {
        TrialAttributes.reason.name: reason,
        TrialAttributes.deaths.name: deaths,
        ending.name: True,
        **(told or {}),
    }
    end(study, trial, about)
    if trial.number == len(study.get_trials(deepcopy=False)) - 1 and not drawn(trial):
        _put_back(study)


def _put_back(study: optuna.Study) -> None:
    """Put the sampler back to where the latest trial began, which is to be drawn again."""
    before = study_attributes(study).sampler_state
    counted = [key for key in system_attributes(study) if key.startswith(QMC)]
    # -1 is where QMCSampler begins to count.
    set_system_attributes(study, {key: before.get(key, -1) for key in counted})


def snapshot_sampler(study: optuna.Study) -> None:
    """Remember where the sampler stands, before it draws; only QMC's stands in the storage."""
    state = {key: value for key, value in system_attributes(study).items() if key.startswith(QMC)}
    if state and state != study_attributes(study).sampler_state:
        StudyAttributes.sampler_state.note(study, state)
