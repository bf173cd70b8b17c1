"""Comparisons of studies: how far each search was from the best that any of them found."""

from __future__ import annotations

import math
from types import SimpleNamespace

import optuna

from rag_opt.reporting.comparison import _compute_best_curve


def test_regret_begins_with_the_first_trial_that_keeps_the_constraints() -> None:
    study = optuna.create_study(direction="maximize")
    for value, beyond in ((0.9, 1.0), (0.5, 0.0), (0.8, 1.0), (0.7, -1.0)):
        trial = study.ask()
        trial.set_constraint("tokens", beyond)
        study.tell(trial, value)
    findings = SimpleNamespace(signs={"nDCG@10": 1.0})
    # One value a trial: a trial that broke a constraint moves no later one to the left.
    assert _compute_best_curve(findings, study) == [-math.inf, 0.5, 0.5, 0.7]
