"""What a further look at the unseen questions may claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import special

from rag_opt.analysis import paired
from rag_opt.analysis.confirmation import Confirmation, MeasuredConfiguration, build_confirmation, spend_error
from rag_opt.analysis.selection import Selection
from rag_opt.reporting.inference import format_level
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
from rag_opt.study.looks import note_look


def questions(name: str = "questions", groups: Sequence[int] = (0, 1, 2)) -> Any:
    return SimpleNamespace(dataset=SimpleNamespace(fingerprint=name), groups=np.array(groups))


def test_the_same_choice_is_the_same_test_and_another_one_is_further() -> None:
    study = optuna.create_study()
    looks = [note_look(study, questions(), [chosen], 0, n) for chosen, n in ((5, 10), (5, 20), (21, 30), (5, 40))]
    assert looks == [1, 1, 2, 1]
    assert get_study_attributes(study).looks == [10, 20, 30, 40]
    # Fresh questions beside the old ones judge anew, and so do other judgements and other groups.
    assert note_look(study, questions("more"), [5], 0, 40) == 3
    assert note_look(study, questions(groups=(0, 0, 2)), [5], 0, 40) == 4
    assert note_look(study, questions(), [5], 0, 40) == 1


def test_the_baseline_itself_is_no_test() -> None:
    study = optuna.create_study()
    found = [note_look(study, questions(), [chosen], 0, n) for chosen, n in ((0, 10), (4, 20), (0, 30), (7, 40))]
    assert found == [1, 1, 1, 2]
    # Without one nothing is compared.
    alone = optuna.create_study()
    assert [note_look(alone, questions(), [chosen], None, 10) for chosen in (1, 2, 3)] == [1, 1, 1]


def test_a_crossfit_is_another_choice_where_a_fold_chooses_another() -> None:
    study = optuna.create_study()
    chosen = [([5, 5, 7], 40), ([5, 5, 7], 41), ([5, 9, 7], 42), ([0, 0, 0], 43)]
    assert [note_look(study, questions(), each, 0, trials) for each, trials in chosen] == [1, 1, 2, 1]


def test_looks_of_an_older_version_count_as_other_choices() -> None:
    study = optuna.create_study()
    StudyAttributes.looks.save(study, [10, 20])
    assert note_look(study, questions(), [5], 0, 30) == 3


def test_all_looks_together_spend_what_one_may() -> None:
    shares = [paired.compute_share(test) for test in range(1, 30)]
    assert shares[:3] == pytest.approx([0.8, 0.16, 0.032])
    assert sum(shares) == pytest.approx(1.0)
    assert [paired.compute_level(test) for test in (1, 2, 3)] == pytest.approx([0.96, 0.992, 0.9984])
    assert [paired.is_spent(test) for test in (1, 4, 6, 7)] == [False, False, False, True]
    # Ten choices that differ in nothing, each as like the last as choices of a growing study are: without shares
    # 15 % of such studies claim something.
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20_000, 10))
    for step in range(1, 10):
        steps[:, step] = 0.7 * steps[:, step - 1] + np.sqrt(1 - 0.7**2) * steps[:, step]
    p_values = 2 * special.ndtr(-np.abs(steps))
    assert (p_values < 0.05).any(axis=1).mean() > 0.15
    assert (p_values / np.array(shares[:10]) < 0.05).any(axis=1).mean() < 0.05


def test_a_later_look_has_wider_intervals_and_greater_p_values() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.random(80)
    measured = [
        MeasuredConfiguration("best", 3, (), 0.5, 10.0, theirs + rng.normal(0.04, 0.1, 80)),
        MeasuredConfiguration("baseline", 0, (), 0.4, 10.0, theirs),
    ]
    found = [
        spend_error(build_confirmation("F1", 1.0, "tokens", Selection(3, (), 3, 0), measured, 0, look=look))
        for look in (1, 2, 3)
    ]
    arms = [each.selected_arm for each in found]
    widths = [arm.difference_high - arm.difference_low for arm in arms]
    normal = [special.ndtri((1 + paired.compute_level(look)) / 2) for look in (1, 2, 3)]
    assert [width / widths[0] for width in widths] == pytest.approx([each / normal[0] for each in normal], rel=0.08)
    assert arms[0].adjusted == pytest.approx(arms[0].p / 0.8)
    assert arms[1].adjusted == pytest.approx(arms[1].p / 0.16, rel=0.2)
    assert math.isnan(found[0].baseline.adjusted)
    assert found[0].shown
    assert not found[2].shown or arms[2].p < 0.0016


def test_findings_of_before_looks_were_counted_keep_their_intervals() -> None:
    measured = [MeasuredConfiguration("best", 3, (), 0.5, 10.0, np.arange(9.0))]
    found = build_confirmation("F1", 1.0, "tokens", Selection(3, (), 3, 0), measured, 0, look=1)
    node = found.to_dict()
    assert format_level(SimpleNamespace(confirmation=Confirmation.from_dict(node))) == "96 %"
    del node["look"]
    assert format_level(SimpleNamespace(confirmation=Confirmation.from_dict(node))) == "95 %"
