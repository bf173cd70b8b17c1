"""A study as one process enters it: opened, checked, prepared; and left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import optuna
from optuna.study import StudyDirection

from rag_opt.samplers import RagSampler
from rag_opt.storages import archive
from rag_opt.storages.attributes import StudyAttributes, study_attributes
from rag_opt.storages.drift import check_fingerprints
from rag_opt.storages.locks import Gate, creating
from rag_opt.storages.notes import name_metrics
from rag_opt.storages.opening import close, explained, gate_for, ledger_of, opened, rescuing
from rag_opt.storages.schema_checks import check_study
from rag_opt.study import timings
from rag_opt.study.drawing import pruner_of, sampler_of

if TYPE_CHECKING:
    from rag_opt.study.plan import Plan


@contextmanager
def entered(plan: Plan, *, rescues: bool = True) -> Iterator[tuple[optuna.Study, Gate]]:
    """The plan's study, opened, and this process's place in it until the end; raises a StudyError.

    Where its file is lost meanwhile, who `rescues` writes what it held to a new one.
    """
    with explained(plan.storage_url):
        directions = [StudyDirection[direction.upper()] for direction in plan.objective.directions]
        study = opened(plan.storage_url, plan.settings.name, directions)
        with creating(plan.storage_url):
            archive.prepare(study)
        gate = gate_for(study)
        try:
            with rescuing(study) if rescues else nullcontext():
                with gate.alone():
                    check_study(study, plan.settings.folder)
                    check_fingerprints(study, plan.fingerprints, plan.settings.folder, plan.parts)
                    _tell_stored(plan, study)
                    name_metrics(study, [*plan.objective.names])
                    if plan.resources.llm.budget is not None:
                        plan.resources.llm.budget.study = ledger_of(study)
                study.pruner = pruner_of(plan.config)[0]
                yield study, gate
        finally:
            gate.leave()
            close(study)


def _tell_stored(plan: Plan, study: optuna.Study) -> None:
    """Where seconds count, have the study know what is computed; once, so that what others store changes no draw."""
    sampler = sampler_of(plan.config, 0)
    if isinstance(sampler, RagSampler) and sampler.counts_seconds and study_attributes(study).stored is None:
        StudyAttributes.stored.note(study, timings.noted(plan.resources.store, plan.shelf))
