"""Scores question by question that a study's database lacks: from the study's folder, or measured again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from rag_opt.analysis import history
from rag_opt.config.overrides import format_overrides, to_config_values
from rag_opt.config.settings import get_trial_folder
from rag_opt.console.screens import report_line
from rag_opt.errors import RagOptError, StudyError
from rag_opt.storages.scores import Book

if TYPE_CHECKING:
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan


def recover_scores(plan: Plan, study: optuna.Study) -> None:
    """Have the database hold the scores of every trial that was told before it kept them, or that it has lost.

    They come from the files in the study's folder or, where these are lost too, are measured again. Raises StudyError
    where they can't be had: without them another configuration would seem best.
    """
    files, missing = plan.get_files(study), list[FrozenTrial]()
    for trial in history.get_measured(study, TrialState.COMPLETE):
        if not _is_intact(plan, files.load_book(trial.number), trial):
            if _is_intact(plan, files.read_book_file(trial.number), trial):
                files.import_files(trial.number)
            else:
                missing.append(trial)
    # Those of pruned trials are never measured again: no choice depends on them.
    for number in _find_pruned(files):
        files.import_files(number)
    if missing:
        numbers = ", ".join(str(trial.number) for trial in missing)
        those = "trial" if len(missing) == 1 else f"{len(missing)} trials:"
        report_line(f"the scores per question of {those} {numbers} are lost; they are measured again")
    for trial in missing:
        _replay_trial(plan, files, trial)


def format_lost_scores(folder: Path, number: int) -> str:
    """What to do about a trial whose scores are neither in the database nor in the folder."""
    return (
        f"trial {number}: its scores question by question are lost, in the database and in "
        f"{get_trial_folder(folder, number)}; put either back from a backup, or start anew with name=<new name>"
    )


def _is_intact(plan: Plan, book: Book | None, trial: FrozenTrial) -> bool:
    asked = tuple(query.id for query in plan.dev.questions.queries.items)
    # Pairs are made by position: scores in another order would be compared with those of other questions.
    return book is not None and book.ids == asked and book.matches(trial, plan.objective.names)


def _find_pruned(files: TrialFiles) -> Iterator[int]:
    """The pruned trials whose scores are in the folder alone."""
    kept = files.get_stored_numbers()
    for trial in history.get_measured(files.study, TrialState.PRUNED):
        if trial.number not in kept and files.read_book_file(trial.number) is not None:
            yield trial.number


def _replay_trial(plan: Plan, files: TrialFiles, trial: FrozenTrial) -> None:
    """Measure a trial's configuration once more; raises StudyError unless that gives its values."""
    folder, names = plan.settings.folder, plan.objective.names
    try:
        evaluation = plan.dev.measure_config(
            plan.dev.compose_overrides(format_overrides(to_config_values(trial.params)))
        )
    except RagOptError as error:
        raise StudyError(f"{format_lost_scores(folder, trial.number)}; measuring it again failed: {error}") from error
    book = Book(evaluation.query_ids, evaluation.per_query)
    # A model or library that has changed since would slip new scores under an old value.
    if not _is_intact(plan, book, trial):
        told = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=False))
        now = ", ".join(f"{name} {evaluation.means[name]:.6g}" for name in names)
        raise StudyError(f"{format_lost_scores(folder, trial.number)}; measured again it has {now}, not {told}")
    files.rewrite_scores(trial.number, evaluation)
