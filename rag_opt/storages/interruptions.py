"""Trials that are ended before they were measured, so that another takes their place."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial

from rag_opt.samplers.internals import fail_trial, get_system_attrs, set_system_attrs
from rag_opt.storages.attributes import StudyAttributes, TrialAttributes, get_attributes, get_study_attributes
from rag_opt.storages.snapshot import is_sampled

QMC = "qmc:"
"""Prefix of the study attributes in which QMCSampler counts its points."""


def interrupt_trial(
    study: optuna.Study, trial: FrozenTrial, retries: int | None = None, told: Mapping[str, str] | None = None
) -> None:
    """End a trial whose place is to be taken again; one that has ended meanwhile stays as it is.

    With `retries` its process died: after so many repeated deaths over a configuration that is given up. `told`:
    attributes that say why it is ended.
    """
    # A stop is no death: it must not bring a configuration nearer to being given up.
    deaths = get_attributes(trial).earlier_deaths + (retries is not None)
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
    fail_trial(study, trial, about)
    # Only the latest can be drawn anew from where it began, and only where its parameters are not all there: one that
    # was drawn whole is tried again with the same ones.
    if trial.number == len(study.get_trials(deepcopy=False)) - 1 and not is_sampled(trial):
        _restore_sampler(study)


def _restore_sampler(study: optuna.Study) -> None:
    """Put the sampler back to where the latest trial began, which is to be drawn again."""
    before = get_study_attributes(study).sampler_state
    counted = [key for key in get_system_attrs(study) if key.startswith(QMC)]
    # Otherwise QMC would leave out the point that the kill has cost, and a resumed study would differ from an
    # uninterrupted one.
    # -1 is where QMCSampler begins to count.
    set_system_attrs(study, {key: before.get(key, -1) for key in counted})


def snapshot_sampler(study: optuna.Study) -> None:
    """Remember where the sampler stands, before it draws; only QMC's stands in the storage."""
    # The others are built anew for each trial, seeded by its place, so there is nothing to put back.
    state = {key: value for key, value in get_system_attrs(study).items() if key.startswith(QMC)}
    if state and state != get_study_attributes(study).sampler_state:
        StudyAttributes.sampler_state.save(study, state)
