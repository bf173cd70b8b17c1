"""Whether a study is still made of what it was made of, and what has changed, named as it was typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import optuna

from rag_opt.errors import DriftError
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes

METHOD = "confirmation.method"

MADE_FROM = {
    "dataset": (
        "dataset",
        "dataset.test_share",
        "dataset.split_seed",
        "dataset.search",
        "dataset.confirm",
        METHOD,
        "dataset.groups",
    ),
    "objective": ("objective", "seed", "evaluation.batches"),
}

Parts = Mapping[str, Mapping[str, str]]


def build_parts(
    dataset: str,
    test_share: float,
    split_seed: int,
    objective: str,
    seed: int,
    batches: int,
    divided: tuple[str | None, ...] = ("auto", "auto", "split", None),
) -> Parts:
    """What the fingerprints of `MADE_FROM` are made from: by fingerprint, each of its parts as text."""
    # In the order in which MADE_FROM names them.
    given = {"dataset": (dataset, test_share, split_seed, *divided), "objective": (objective, seed, batches)}
    return {name: dict(zip(MADE_FROM[name], map(str, values), strict=True)) for name, values in given.items()}


def check_fingerprints(study: optuna.Study, now: Mapping[str, str], folder: Path, parts: Parts | None = None) -> None:
    """Remember what a new study is made of; raises DriftError when an old one was made of something else."""
    then = get_study_attributes(study).fingerprints
    if not then:
        if study.get_trials(deepcopy=False):
            raise DriftError(
                f"study '{study.study_name}' has trials that another program made; "
                f"choose name=<new name>, or end what runs there and then remove {folder}"
            )
        StudyAttributes.fingerprints.save(study, dict(now))
        StudyAttributes.parts.save(study, {name: dict(made) for name, made in (parts or {}).items()})
        return
    # Optuna itself refuses another list of choices alone: it accepts another range of numbers in silence.
    if any(then.get(name) != now[name] for name in now):
        raise DriftError(_format_drift(study, then, now, parts or {}, folder))


def _format_drift(
    study: optuna.Study, then: Mapping[str, str], now: Mapping[str, str], parts: Parts, folder: Path
) -> str:
    changed: dict[str, tuple[str, str]] = {}
    for name in now:
        if then.get(name) != now[name]:
            changed |= _find_changed_parts(study, name, parts) or {
                _format_name(study, name): (then.get(name, "unknown"), now[name])
            }
    lines = [f"  {name}: then {before}, now {after}" for name, (before, after) in changed.items()]
    return (
        f"study '{study.study_name}' was made with another {' and '.join(changed)}; its scores would not compare\n"
        + "\n".join(lines)
        + _format_way_back(study, parts)
        + "\n  either keep it and start another: name=<new name>\n  or start it anew: "
        f"end every command that still runs it, then remove {folder}"
    )


def _format_way_back(study: optuna.Study, parts: Parts) -> str:
    """How a study goes on whose way to confirm was chosen for it, and would be another one today; "" for others."""
    # What was begun before there were two ways was split.
    then = get_study_attributes(study).parts.get("dataset", {}).get(METHOD, "split")
    now = parts.get("dataset", {}).get(METHOD, then)
    return "" if then == now else f"\n  {METHOD}={then} goes on as it was begun"


def _find_changed_parts(study: optuna.Study, name: str, parts: Parts) -> dict[str, tuple[str, str]]:
    """Those parts of a fingerprint that have changed: (then, now); {} where that is not known."""
    then, now = get_study_attributes(study).parts.get(name, {}), parts.get(name, {})
    return {part: (then[part], now[part]) for part in now if part in then and then[part] != now[part]}


def _format_name(study: optuna.Study, name: str) -> str:
    """A fingerprint's name; of a study that did not keep its parts, those that it may be."""
    if name not in MADE_FROM or get_study_attributes(study).parts.get(name):
        return name
    *others, last = MADE_FROM[name]
    return f"{', '.join(others)} or {last}"
