"""By how much parameters move the score: against functions whose effects are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from rag_opt.samplers.effects import draw_pairs, estimate_effects
from rag_opt.samplers.space import ABSENT, infer_space

MAXIMIZE = [optuna.study.StudyDirection.MAXIMIZE]
SPACE = {"retriever": CategoricalDistribution(["bm25", "dense", "hybrid"]), "top_k": IntDistribution(3, 20)}
WEIGHT = FloatDistribution(0.0, 1.0)


def sample_trials(score: Callable[[Mapping[str, Any]], float], count: int = 40, seed: int = 0) -> list:
    """Trials at random of a space in which the weight exists for hybrid alone."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        params = {"retriever": str(rng.choice(["bm25", "dense", "hybrid"])), "top_k": int(rng.integers(3, 21))}
        known = dict(SPACE)
        if params["retriever"] == "hybrid":
            params["weight"], known["weight"] = float(rng.random()), WEIGHT
        found.append(create_trial(params=params, distributions=known, value=score(params)))
    return found


def test_what_moves_the_score_comes_first_with_its_size() -> None:
    places = {"bm25": 0.5, "dense": 0.6, "hybrid": 0.8}
    found = estimate_effects(MAXIMIZE, sample_trials(lambda p: places[p["retriever"]] + 0.002 * p["top_k"]))
    true = np.sqrt(np.mean([(places[a] - places[b]) ** 2 for a, b in product(places, places) if a != b]))
    assert list(found)[:2] == ["retriever", "top_k"]
    assert found["retriever"].low < true < found["retriever"].high
    assert found["retriever"].size == pytest.approx(true, rel=0.15)
    # Two different whole numbers of 3 to 20 lie apart by the root of twice their variance, and a little more.
    numbers = np.arange(18)
    apart = 0.002 * np.sqrt(np.mean([(a - b) ** 2 for a, b in product(numbers, numbers) if a != b]))
    assert found["top_k"].size == pytest.approx(apart, rel=0.35)
    # What does nothing is said to do next to nothing.
    assert found["weight"].size < 0.15 * true


def test_a_parameter_counts_where_it_exists() -> None:
    found = estimate_effects(MAXIMIZE, sample_trials(lambda p: p.get("weight", 0.5)))
    # Of two uniform numbers the squared distance is 1/6 on average.
    assert next(iter(found)) == "weight"
    assert found["weight"].size == pytest.approx(np.sqrt(1 / 6), rel=0.2)


def test_where_a_sampler_went_does_not_matter() -> None:
    """Thirty trials with the best retriever and two with others: PED-ANOVA would call it unimportant."""
    places = {"bm25": 0.2, "dense": 0.3, "hybrid": 0.8}
    trials = sample_trials(lambda p: places[p["retriever"]] + 0.001 * p["top_k"], 120)
    kept = [t for t in trials if t.params["retriever"] == "hybrid"][:30]
    others = [next(t for t in trials if t.params["retriever"] == name) for name in ("bm25", "dense")]
    assert next(iter(estimate_effects(MAXIMIZE, [*others, *kept]))) == "retriever"


def test_the_same_trials_give_the_same_effects_in_either_direction() -> None:
    def score(params: Mapping[str, Any]) -> float:
        return params["top_k"] / 20

    found = estimate_effects(MAXIMIZE, sample_trials(score))
    assert found == estimate_effects(MAXIMIZE, sample_trials(score))
    turned = estimate_effects([optuna.study.StudyDirection.MINIMIZE], sample_trials(lambda p: -score(p)))
    assert {name: each.size for name, each in turned.items()} == pytest.approx(
        {name: each.size for name, each in found.items()}
    )


def test_too_little_says_nothing() -> None:
    assert estimate_effects(MAXIMIZE, []) == {}
    assert estimate_effects(MAXIMIZE, sample_trials(lambda p: 1.0, 1)) == {}
    assert estimate_effects(MAXIMIZE, sample_trials(lambda p: 1.0)) == {}
    single = create_trial(params={"a": 1}, distributions={"a": IntDistribution(1, 1)}, value=0.0)
    assert estimate_effects(MAXIMIZE, [single, single]) == {}


def test_pairs_differ_in_one_parameter_and_what_hangs_on_it() -> None:
    trials = sample_trials(lambda p: 0.0)
    space = infer_space([t.params for t in trials], {**SPACE, "weight": WEIGHT})
    names = [axis.name for axis in space.axes]
    for column, name in enumerate(names):
        before, after = draw_pairs(space, column, np.random.default_rng(1))
        assert len(before) == len(after) > 0
        assert (before[:, column] != ABSENT).all()
        assert (before[:, column] != after[:, column]).all()
        for other in range(len(names)):
            same = before[:, other] == after[:, other]
            assert same.all() or other == column or (name, names[other]) == ("retriever", "weight")


def test_a_choice_of_what_python_takes_for_one_value_is_left_out() -> None:
    known = {"a": CategoricalDistribution([1, True]), "top_k": IntDistribution(3, 20)}
    trials = [create_trial(params={"a": 1, "top_k": k}, distributions=known, value=k / 20) for k in range(3, 15)]
    assert list(estimate_effects(MAXIMIZE, trials)) == ["top_k"]
