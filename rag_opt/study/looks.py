"""How often a study's unseen questions were looked at, and how many choices they have judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_opt.records.keys import compute_key
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes

if TYPE_CHECKING:
    import optuna

    from rag_opt.evaluation.evaluate import Questions


def note_look(
    study: optuna.Study, questions: Questions, chosen: Sequence[int], baseline: int | None, trials: int
) -> int:
    """Which of the different choices that these questions have judged this one is, from 1; noted with the study.

    `chosen` is the trial that was selected of so many, or those that judge each question of a crossfit. The same choice
    judged by the same questions is the same test, however often it is made. Where it is the `baseline` itself, or there
    is none, nothing is tested.
    """
    noted = get_study_attributes(study)
    sizes = sorted({*noted.looks, trials})
    key = compute_key(questions.dataset.fingerprint, questions.groups.tolist(), list(chosen))
    # Looks that an older version has noted may each have been at another choice.
    tests = [""] * (len(sizes) - 1) if noted.tests is None else list(noted.tests)
    if key not in tests and baseline is not None and {*chosen} != {baseline}:
        tests.append(key)
    StudyAttributes.looks.save(study, sizes)
    StudyAttributes.tests.save(study, tests)
    return tests.index(key) + 1 if key in tests else 1
