"""What optuna-dashboard shows of a study and its trials beside their numbers: notes, figures, the objectives' names."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from rag_opt.samplers.internals import get_system_attrs, get_trial_id, set_system_attrs

NOTE_PART = 2045
"""Characters that one of optuna-dashboard's attributes holds."""


def save_note(trial: optuna.Trial, body: str) -> None:
    """Give a new trial its note (Markdown) in optuna-dashboard.

    As `optuna_dashboard.save_note`, whose import costs a second, and which reads the notes of all trials every time.
    """
    prefix = f"dashboard:{get_trial_id(trial)}:"
    parts = {f"{prefix}note_str:{part}": text for part, text in enumerate(_split_text(body))}
    set_system_attrs(trial.study, {f"{prefix}note_ver": 1, **parts})


def name_metrics(study: optuna.Study, names: list[str]) -> None:
    """Have optuna-dashboard call the objectives by these names."""
    if study.metric_names != names:
        with warnings.catch_warnings():
            # It may change, says Optuna.
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(names)


def save_study_note(study: optuna.Study, body: str) -> None:
    """Give a study its note (Markdown) in optuna-dashboard, in place of the one it has."""
    version = get_system_attrs(study).get("dashboard:note_ver", 0)
    # The dashboard saves what a person edited only over the version that was shown, so a new text needs a new one.
    set_system_attrs(study, {"dashboard:note_ver": version + 1})
    _save_parts(study, "dashboard:note_str:", body)


def save_study_figure(study: optuna.Study, name: str, figure: str) -> None:
    """Give a study a figure (Plotly's JSON) in optuna-dashboard, as its `save_plotly_graph_object` does."""
    _save_parts(study, f"dashboard:plot_data:{name}:", figure)


def _save_parts(study: optuna.Study, prefix: str, text: str) -> None:
    """Keep a text in as many attributes as it needs, and empty those that a longer one left."""
    parts = _split_text(text)
    # Optuna can't remove an attribute, and the dashboard joins all that begin like this.
    old = sum(key.startswith(prefix) for key in get_system_attrs(study))
    whole = [*parts, *[""] * (old - len(parts))]
    set_system_attrs(study, {f"{prefix}{place}": part for place, part in enumerate(whole)})


def _split_text(text: str) -> list[str]:
    return [text[start : start + NOTE_PART] for start in range(0, len(text), NOTE_PART)]
