"""What optuna-dashboard shows of a study and its trials beside their numbers: notes, figures, the objectives' names."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from rag_opt.samplers.internals import set_system_attributes, system_attributes, trial_id

NOTE_PART = 2045
"""Characters that one of optuna-dashboard's attributes holds."""


def note(trial: optuna.Trial, body: str) -> None:
    """Give a new trial its note (Markdown) in optuna-dashboard.

    As `optuna_dashboard.save_note`, whose import costs a second, and which reads the notes of all trials every time.
    """
    prefix = f"dashboard:{trial_id(trial)}:"
    parts = {f"{prefix}note_str:{part}": text for part, text in enumerate(_parts(body))}
    set_system_attributes(trial.study, {f"{prefix}note_ver": 1, **parts})


def name_metrics(study: optuna.Study, names: list[str]) -> None:
    """Have optuna-dashboard call the objectives by these names."""
    if study.metric_names != names:
        with warnings.catch_warnings():
            # It may change, says Optuna.
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(names)


def note_study(study: optuna.Study, body: str) -> None:
    """Give a study its note (Markdown) in optuna-dashboard, in place of the one it has."""
    version = system_attributes(study).get("dashboard:note_ver", 0)
    set_system_attributes(study, {"dashboard:note_ver": version + 1})
    _set_parts(study, "dashboard:note_str:", body)


def plot_study(study: optuna.Study, name: str, figure: str) -> None:
    """Give a study a figure (Plotly's JSON) in optuna-dashboard, as its `save_plotly_graph_object` does."""
    _set_parts(study, f"dashboard:plot_data:{name}:", figure)


def _set_parts(study: optuna.Study, prefix: str, text: str) -> None:
    """Keep a text in as many attributes as it needs, and empty those that a longer one left."""
    parts = _parts(text)
    old = sum(key.startswith(prefix) for key in system_attributes(study))
    whole = [*parts, *[""] * (old - len(parts))]
    set_system_attributes(study, {f"{prefix}{place}": part for place, part in enumerate(whole)})


def _parts(text: str) -> list[str]:
    return [text[start : start + NOTE_PART] for start in range(0, len(text), NOTE_PART)]
