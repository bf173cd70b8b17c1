"""How long a study takes, judged by its baseline: by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study import eta


def plan(*searched: str, crossfits: bool = False) -> Any:
    """A plan of 25 trials, 100 questions to search with and 50 unseen ones."""
    return SimpleNamespace(
        settings=SimpleNamespace(n_trials=25, ties=3, crossfits=crossfits),
        space=SimpleNamespace(parameters=[SimpleNamespace(name=name) for name in searched]),
        dev=SimpleNamespace(questions=SimpleNamespace(count=100)),
        test=SimpleNamespace(questions=SimpleNamespace(count=50)),
    )


def after_baseline(others: int = 0) -> StudySnapshot:
    """A study whose baseline took 40 s, 30 of them to ask and judge, 0.2 s a question."""
    study = optuna.create_study()
    for number in range(1 + others):
        about = {"seconds": {"query": 0.2, "evaluation": 30.0}, **({} if number else {"origin": "baseline"})}
        trial = create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs=about)
        trial.datetime_start = datetime(2026, 1, 1)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=40)
        study.add_trial(trial)
    return StudySnapshot(study)


def test_the_whole_time_is_told_after_the_baseline() -> None:
    """24 × 30 s; 5 finalists × 50 × 0.3 s, 6 × 50 × 0.61 s, 5 s: 720 + 75 + 183 + 5."""
    told = eta.format_estimate(plan("retriever.k1"), after_baseline())
    assert (
        told
        == "judged by the baseline (0:40) the rest takes about 16:23: 24 trials, and 4:23 to confirm, time and report"
    )


def test_what_a_crossfit_has_asked_already_is_not_asked_again() -> None:
    told = eta.format_estimate(plan("retriever.k1", crossfits=True), after_baseline())
    assert "about 15:08: 24 trials, and 3:08 to" in told


def test_other_indexes_may_take_what_the_baselines_took() -> None:
    """24 × 40 s are 240 s more."""
    assert "about 16:23 to 20:23:" in eta.format_estimate(plan("splitter.chunk_size"), after_baseline())


@pytest.mark.parametrize("others", [1, 24])
def test_it_is_told_once(others: int) -> None:
    assert eta.format_estimate(plan("retriever.k1"), after_baseline(others)) == ""
