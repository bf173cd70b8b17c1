"""Scores question by question that a study's database lacks: from the study's folder, or measured again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from rag_opt.analysis import history
from rag_opt.config.overrides import values_of, words
from rag_opt.config.settings import trial_folder
from rag_opt.console.progress import say
from rag_opt.errors import RagOptError, StudyError
from rag_opt.storages.scores import Book

if TYPE_CHECKING:
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan


def recovered(plan: Plan, study: optuna.Study) -> None:
    """Have the database hold the scores of every trial that was told before it kept them, or that it has lost.

    They come from the files in the study's folder or, where these are lost too, are measured again. Raises StudyError
    where they can't be had: without them another configuration would seem best.
    """
    files, missing = plan.files(study), list[FrozenTrial]()
    for trial in history.finished(study, TrialState.COMPLETE):
        if not _good(plan, files.kept(trial.number), trial):
            if _good(plan, files.left(trial.number), trial):
                files.adopt(trial.number)
            else:
                missing.append(trial)
    for number in _stopped_early(files):
        files.adopt(number)
    if missing:
        numbers = ", ".join(str(trial.number) for trial in missing)
        those = "trial" if len(missing) == 1 else f"{len(missing)} trials:"
        say(f"the scores per question of {those} {numbers} are lost; they are measured again")
    for trial in missing:
        _measured_again(plan, files, trial)


def lost(folder: Path, number: int) -> str:
    """What to do about a trial whose scores are neither in the database nor in the folder."""
    return (
        f"trial {number}: its scores question by question are lost, in the database and in "
        f"{trial_folder(folder, number)}; put either back from a backup, or start anew with name=<new name>"
    )


def _good(plan: Plan, book: Book | None, trial: FrozenTrial) -> bool:
    asked = tuple(query.id for query in plan.dev.questions.queries.items)
    return book is not None and book.ids == asked and book.fits(trial, plan.objective.names)


def _stopped_early(files: TrialFiles) -> Iterator[int]:
    """The pruned trials whose scores are in the folder alone."""
    kept = files.kept_numbers()
    for trial in history.finished(files.study, TrialState.PRUNED):
        if trial.number not in kept and files.left(trial.number) is not None:
            yield trial.number


def _measured_again(plan: Plan, files: TrialFiles, trial: FrozenTrial) -> None:
    """Measure a trial's configuration once more; raises StudyError unless that gives its values."""
    folder, names = plan.settings.folder, plan.objective.names
    try:
        evaluation = plan.dev.measured(plan.dev.composed(words(values_of(trial.params))))
    except RagOptError as error:
        raise StudyError(f"{lost(folder, trial.number)}; measuring it again failed: {error}") from error
    book = Book(evaluation.query_ids, evaluation.per_query)
    if not _good(plan, book, trial):
        told = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=False))
        now = ", ".join(f"{name} {evaluation.means[name]:.6g}" for name in names)
        raise StudyError(f"{lost(folder, trial.number)}; measured again it has {now}, not {told}")
    files.rewrite(trial.number, evaluation)
