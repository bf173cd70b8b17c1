"""Optuna's Plotly figures come without Matplotlib, which stays whole for whoever wants it."""

from __future__ import annotations

import subprocess
import sys

PLOTS = """
import sys, optuna
from rag_opt.reporting.optuna_plots import load_visualization
visualization = load_visualization()
assert load_visualization() is visualization is sys.modules["optuna.visualization"]
study = optuna.create_study()
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
assert visualization.plot_optimization_history(study).data
assert "matplotlib" not in sys.modules
from optuna.visualization.matplotlib import plot_optimization_history
assert plot_optimization_history(study).get_lines() or plot_optimization_history(study).collections
"""


def test_matplotlib_is_not_loaded_and_can_be_used_later() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PLOTS], check=True)
