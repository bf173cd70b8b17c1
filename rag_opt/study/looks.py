"""How often a study's unseen questions were looked at, and how many choices they have judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_opt.records.keys import compute_key
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes

if TYPE_CHECKING:
    import optuna

    from rag_opt.study.plan import Plan


def note_look(plan: Plan, study: optuna.Study, selected: int, baseline: int | None, trials: int) -> int:
    """Which of the different choices that these questions have judged this one is, from 1; noted with the study.

    `selected` is the trial that was selected of so many. The same choice judged by the same questions is the same test,
    however often it is made; where that is the `baseline` itself, nothing is tested.
    """
    noted = get_study_attributes(study)
    sizes = sorted({*noted.looks, trials})
    # A crossfit's choices are those of all trials so far, fold by fold.
    what = trials if plan.settings.crossfits else selected
    key = compute_key(plan.test.questions.queries.key, plan.settings.crossfits, what)
    # Looks that an older version has noted may each have been at another choice.
    tests = [""] * (len(sizes) - 1) if noted.tests is None else list(noted.tests)
    if key not in tests and selected != baseline:
        tests.append(key)
    StudyAttributes.looks.save(study, sizes)
    StudyAttributes.tests.save(study, tests)
    return tests.index(key) + 1 if key in tests else max(1, len(tests))
