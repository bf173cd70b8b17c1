"""A study as one process enters it: opened, checked, prepared; and left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import optuna
from optuna.study import StudyDirection

from rag_opt.samplers import RagSampler
from rag_opt.storages import archive
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
from rag_opt.storages.drift import check_fingerprints
from rag_opt.storages.locks import Member, lock_creation
from rag_opt.storages.notes import name_metrics
from rag_opt.storages.opening import (
    close_study,
    get_ledger,
    open_member,
    open_study,
    rescue_lost_file,
    translate_errors,
)
from rag_opt.storages.schema_checks import check_study
from rag_opt.study import timings
from rag_opt.study.sampling import build_pruner, build_sampler

if TYPE_CHECKING:
    from rag_opt.study.plan import Plan


@contextmanager
def join_study(plan: Plan, *, rescues: bool = True) -> Iterator[tuple[optuna.Study, Member]]:
    """The plan's study, opened, and this process's place in it until the end; raises a StudyError.

    Where its file is lost meanwhile, who `rescues` writes what it held to a new one.
    """
    with translate_errors(plan.storage_url):
        directions = [StudyDirection[direction.upper()] for direction in plan.objective.directions]
        study = open_study(plan.storage_url, plan.settings.name, directions)
        # Commands and workers may start at once on an empty database, and some would fail to make the table.
        with lock_creation(plan.storage_url):
            archive.create_table(study)
        member = open_member(study)
        try:
            with rescue_lost_file(study) if rescues else nullcontext():
                with member.take_turn():
                    # First: what is compared and noted below reads attributes that anybody may have written.
                    check_study(study, plan.settings.folder)
                    # In its turn, since who comes first writes the fingerprints that all others are compared with.
                    check_fingerprints(study, plan.fingerprints, plan.settings.folder, plan.parts)
                    _record_stored(plan, study)
                    name_metrics(study, [*plan.objective.names])
                    if plan.resources.llm.budget is not None:
                        # Until now the budget knew the folder only; under this name payments survive a move.
                        plan.resources.llm.budget.study = get_ledger(study)
                study.pruner = build_pruner(plan.config)[0]
                yield study, member
        finally:
            member.leave()
            close_study(study)


def _record_stored(plan: Plan, study: optuna.Study) -> None:
    """Where seconds count, have the study know what is computed; once, so that what others store changes no draw."""
    sampler = build_sampler(plan.config, 0)
    if isinstance(sampler, RagSampler) and sampler.counts_seconds and get_study_attributes(study).stored is None:
        StudyAttributes.stored.save(study, timings.read_timings(plan.resources.store, plan.timings_key))
