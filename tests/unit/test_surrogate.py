"""The sampler's formulas, each against another way to the same number; what they make of trials that say less."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from scipy import stats

from rag_opt.samplers import RagSampler
from rag_opt.samplers.costs import StageSeconds
from rag_opt.samplers.gaussian_process import (
    JITTER,
    SCALE,
    SHAPE,
    Draws,
    Process,
    compute_distances,
    expected_improvement,
    fit_process,
    log_feasibility,
    sample_prior,
)
from rag_opt.samplers.observations import (
    PARTIAL,
    Observations,
    collect_observations,
    scalarize_values,
    subsample_observations,
)
from rag_opt.samplers.space import ABSENT, Space, build_axis, infer_space, merge_distributions
from rag_opt.samplers.surrogate import fit_surrogate, hypervolume_improvement

SPACE = Space(
    tuple(
        build_axis(name, distribution)
        for name, distribution in {
            "a": CategoricalDistribution(["x", "y", "z"]),
            "b": FloatDistribution(0, 1),
            "c": IntDistribution(0, 9),
        }.items()
    ),
    (None, None, None),
)


def test_how_far_apart_values_are() -> None:
    """Names: 0 or 1. Numbers: on their scale, or in rank. "Does not exist" is a value of its own, amid the others."""
    axes = [
        build_axis("name", CategoricalDistribution(["x", "y"])),
        build_axis("rank", CategoricalDistribution([1, 2, 8])),
        build_axis("log", FloatDistribution(1, 100, log=True)),
    ]
    gone = ABSENT
    places = np.array([[0, 0, 0.0], [1, 1, 0.5], [1, 2, 1.0], [gone, gone, gone]])
    assert axes[2].to_units([1, 10, 100]) == pytest.approx(places[:3, 2])
    assert axes[2].to_units([0.1, 1000]) == pytest.approx([0, 1])  # a range that was wider in an earlier trial
    name, rank, log = compute_distances(axes, places, places)
    assert name == pytest.approx(np.array([[0, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]]))
    assert rank[0] == pytest.approx([0, 0.75, 1, 0.75])
    assert rank[3] == pytest.approx([0.75, 0.5, 0.75, 0])
    assert log[0] == pytest.approx([0, 0.5, 1, 1])
    assert log[3] == pytest.approx([1, 0.5, 1, 0])


def test_the_kernel_adds_agreement_and_multiplies_it() -> None:
    draws = sample_prior(np.random.default_rng(0), 4, 3)
    apart = np.array([0.2, 1.0, 0.5])
    found = draws.compute_kernel(apart[:, None, None])[:, 0, 0]
    for draw in range(4):
        added = sum(weight * (1 - far) for weight, far in zip(draws.weights[draw], apart, strict=True))
        multiplied = np.prod([np.exp(-rate * far) for rate, far in zip(draws.rates[draw], apart, strict=True)])
        assert found[draw] == pytest.approx(draws.share[draw] * added + (1 - draws.share[draw]) * multiplied)
    foreign = draws.compute_kernel(apart[:, None, None], np.ones((1, 1)))[:, 0, 0]
    assert foreign == pytest.approx(found * draws.trust)


def test_a_range_is_the_widest_that_was_asked_for() -> None:
    found = merge_distributions(
        [{"x": IntDistribution(0, 10)}, {"x": IntDistribution(5, 20)}, {"y": FloatDistribution(0, 1)}]
    )
    assert found == {"x": IntDistribution(0, 20), "y": FloatDistribution(0, 1)}
    last = merge_distributions([{"x": IntDistribution(0, 10)}, {"x": IntDistribution(1, 20, log=True)}])["x"]
    assert isinstance(last, IntDistribution)
    assert last.log


def test_a_condition_names_no_more_parents_than_it_needs() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        row = {name: int(rng.integers(3)) for name in "abc"}
        rows.append(row | ({"d": 1.0} if (row["a"], row["c"]) in {(1, 2), (2, 0)} else {}))
    choices = dict.fromkeys("abc", CategoricalDistribution([0, 1, 2]))
    condition = infer_space(rows, choices | {"d": FloatDistribution(0, 1)}).conditions[3]
    assert condition is not None
    assert condition.parents == (0, 2)
    assert condition.exists == {(1.0, 2.0), (2.0, 0.0)}


def process_of(points: int, keep: int, seed: int = 0) -> tuple[Process, Draws, Any, Any, Any]:
    """A process at points of SPACE: with the draws, distances, targets and noise that it was made from."""
    rng = np.random.default_rng(seed)
    units = SPACE.sample_units(rng, points)
    targets, noise = rng.normal(size=points), rng.uniform(1, 4, points)
    draws, apart = sample_prior(rng, 20, 3), compute_distances(SPACE.axes, units, units)
    return fit_process(draws, apart, targets, noise, keep=keep), draws, apart, targets, noise


@given(st.integers(2, 12), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_draws_weigh_what_their_evidence_is(points: int, seed: int) -> None:
    """With its variance integrated out, values are of Student's t: scipy's density, and the best draws are kept."""
    process, draws, apart, targets, noise = process_of(points, keep=8, seed=seed)
    kernels = draws.compute_kernel(apart) + [np.diag(one * noise + JITTER) for one in draws.noise]
    logs = [stats.multivariate_t(shape=SCALE / SHAPE * kernel, df=2 * SHAPE).logpdf(targets) for kernel in kernels]
    kept = np.argsort(logs)[::-1][:8]
    weights = np.exp(np.array(logs)[kept] - max(logs))
    assert process.draws.share == pytest.approx(draws.share[kept])
    assert process.weights == pytest.approx(weights / weights.sum())


def test_what_is_expected_of_a_point_is_so_over_all_draws() -> None:
    process, *_ = process_of(8, keep=6)
    new = SPACE.sample_units(np.random.default_rng(1), 3)
    known = SPACE.sample_units(np.random.default_rng(2), 8)
    mean, deviation = process.predict(compute_distances(SPACE.axes, new, known))
    best = np.linspace(0, 0.5, 6)
    rng = np.random.default_rng(3)
    row = rng.choice(6, 400_000, p=process.weights)
    drawn = rng.normal(mean[row], deviation[row])
    improved = np.maximum(drawn - best[row, None], 0).mean(axis=0)
    assert expected_improvement(process, mean, deviation, best) == pytest.approx(improved, rel=0.03)
    allowed = np.exp(log_feasibility(process, compute_distances(SPACE.axes, new, known), 0.3))
    assert allowed == pytest.approx((drawn <= 0.3).mean(axis=0), abs=0.005)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=8), st.integers(-3, 10), st.integers(-3, 10))
def test_a_front_grows_by_the_cells_that_a_point_adds(front: list[tuple[int, int]], x: int, y: int) -> None:
    def cells(points: list[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(i, j) for right, top in points for i in range(right) for j in range(top)}

    added = len(cells([*front, (x, y)])) - len(cells(front))
    rows = np.array(front, float).reshape(-1, 2)
    assert hypervolume_improvement(rows, np.array([[float(x)]]), np.array([[float(y)]]))[0, 0] == added


def known(values: Any, configurations: Any = None) -> Observations:
    rows = np.array(values, float).reshape(len(values), -1)
    given = configurations or [{"a": "x", "b": at / len(rows), "c": 0} for at in range(len(rows))]
    return Observations(given, rows, np.ones(len(rows)), [{}] * len(rows))


def test_a_trial_under_way_counts_as_if_it_met_what_is_expected() -> None:
    own = known([0.1, 0.5, 0.2, 0.9], [{"a": "x", "b": b, "c": 0} for b in (0.0, 0.3, 0.6, 1.0)])
    pending = {"a": "y", "b": 0.8, "c": 5}
    at = SPACE.to_units([pending])
    said = []
    for under_way in ([], [pending]):
        surrogate = fit_surrogate(own, (), under_way, SPACE, np.ones(1), np.random.default_rng(0))
        process = surrogate.processes[0]
        mean, deviation = process.predict(compute_distances(SPACE.axes, at, surrogate.units))
        said.append(
            (process.weights @ mean[:, 0], process.weights @ deviation[:, 0], surrogate.score_candidates(SPACE, at)[0])
        )
    (mean, deviation, worth), (same, less, worthless) = said
    assert same == pytest.approx(mean, abs=0.05)
    assert less < 0.6 * deviation
    assert worthless < worth - 0.5


def test_another_studys_values_weigh_less_than_ones_own() -> None:
    """Of two that contradict each other at the same place, one's own is believed."""
    own = known([0.0, 1.0], [{"a": "x", "b": 0.1, "c": 0}, {"a": "x", "b": 0.9, "c": 0}])
    other = known([1.0, 0.0, 0.5], [*own.configurations, {"a": "x", "b": 0.5, "c": 0}])
    surrogate = fit_surrogate(own, [other], [], SPACE, np.ones(1), np.random.default_rng(0))
    process, at = surrogate.processes[0], SPACE.to_units(own.configurations)
    low, high = process.predict_mean(
        compute_distances(SPACE.axes, at, surrogate.units), surrogate.foreign[None, None, :]
    )
    assert high > low + 1  # standardised: they are 2 apart
    assert surrogate.order.tolist() == [1, 0]  # one's own, the best first


def test_what_breaks_a_constraint_is_no_part_of_the_front() -> None:
    own = Observations(
        [{"a": "x", "b": b, "c": 0} for b in (0.0, 0.5, 1.0)],
        np.array([[0.0, 1.0], [9.0, 9.0], [1.0, 0.0]]),
        np.ones(3),
        [{"small": -1.0}, {"small": 1.0}, {"small": 0.0}],
    )
    surrogate = fit_surrogate(own, (), [], SPACE, np.ones(2), np.random.default_rng(0))
    assert len(surrogate.front) == 2
    assert (surrogate.front.max(axis=0) < np.ptp(surrogate.front, axis=0) + 1).all()
    assert len(surrogate.processes) == 2
    assert len(surrogate.limits) == 1


def test_it_begins_with_what_covers_the_space() -> None:
    space = {
        "five": CategoricalDistribution(list("abcde")),
        "two": CategoricalDistribution([False, True]),
        "real": FloatDistribution(0, 1),
    }
    for seed in range(5):
        study = optuna.create_study(sampler=RagSampler(seed=seed))
        study.enqueue_trial({"five": "c", "two": True, "real": 0.5})
        for _ in range(5):
            study.tell(study.ask(space), 0.0)
        rows = [trial.params for trial in study.trials]
        assert sorted(row["five"] for row in rows) == list("abcde")
        assert 2 <= sum(row["two"] for row in rows) <= 3
        reals = sorted(row["real"] for row in rows)
        assert np.diff([0, *reals, 1]).max() < 0.45


def test_what_was_enqueued_is_kept_and_the_rest_is_proposed() -> None:
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    space = {"a": CategoricalDistribution([0, 1, 2]), "b": CategoricalDistribution([0, 1, 2, 3])}
    for _ in range(6):
        trial = study.ask(space)
        study.tell(trial, trial.params["a"] + 0.1 * trial.params["b"])
    missing = {0, 1, 2, 3} - {t.params["b"] for t in study.trials if t.params["a"] == 0}
    for _ in missing:
        study.enqueue_trial({"a": 0})
        trial = study.ask(space)
        study.tell(trial, 0.1 * trial.params["b"])
    assert {t.params["b"] for t in study.trials[6:]} == missing
    assert {t.params["a"] for t in study.trials[6:]} == {0}


def test_of_many_trials_the_best_half_and_some_others_are_known() -> None:
    values = np.random.default_rng(0).normal(size=300)
    chosen = subsample_observations(known(values), 100, np.ones(1), np.random.default_rng(0))
    assert len(chosen) == 100
    assert sorted(chosen.values[:, 0])[50:] == pytest.approx(sorted(values)[-50:])
    assert min(chosen.values[:, 0]) < np.median(values)
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=200)
    study.sampler = RagSampler(seed=0)
    assert study.ask({"x": FloatDistribution(0, 1)}).params["x"] > 0.98


def test_several_objectives_are_made_one_by_their_weights() -> None:
    values = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, 0.6], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]])
    for heavy in range(2):
        weights = np.full(3, 0.02)
        weights[heavy] = 0.96
        assert scalarize_values(values, weights).argmax() == heavy
    assert scalarize_values(values, np.full(3, 1 / 3)).argmax() == 2
    assert scalarize_values(np.ones((2, 3)), np.full(3, 1 / 3)) == pytest.approx([0, 0])


def test_a_pruned_trial_is_known_by_the_mean_of_its_reports_and_noisier_the_fewer_they_are() -> None:
    study = optuna.create_study(direction="minimize")
    space = {"b": FloatDistribution(0, 1)}
    for steps, state in ((4, TrialState.COMPLETE), (2, TrialState.PRUNED), (1, TrialState.PRUNED)):
        told = {"intermediate_values": {step: float(step) for step in range(steps)}}
        more = {"value": 9.0} if state == TrialState.COMPLETE else {"state": state}
        study.add_trial(optuna.create_trial(params={"b": 0.5}, distributions=space, **told, **more))
    study.add_trial(optuna.create_trial(params={"b": 0.5}, distributions=space, state=TrialState.PRUNED))
    found = collect_observations(study.directions, study.trials, {"b"})
    assert found.values[:, 0] == pytest.approx([-9.0, -0.5, 0.0])
    assert found.noise == pytest.approx([1, 2 * PARTIAL, 4 * PARTIAL])


def test_what_is_computed_once_costs_nothing_again() -> None:
    cost = StageSeconds({"indexing": ["splitter"], "evaluation": ["splitter", "query"]})
    study = optuna.create_study()
    sizes, ks = CategoricalDistribution([100, 200, 300]), IntDistribution(1, 50)
    trials = (
        (100, 1, {"indexing": 7.0, "evaluation": 1.0}),
        (100, 1, {"indexing": 0.1, "evaluation": 0.1}),  # from a store, so it took less
        (200, 1, {"indexing": 3.0, "evaluation": 2.0}),
    )
    space = {"splitter.size": sizes, "query.top_k": ks}
    for size, k, seconds in trials:
        params, told = {"splitter.size": size, "query.top_k": k}, {"seconds": seconds}
        study.add_trial(optuna.create_trial(params=params, distributions=space, user_attrs=told, value=0.0))
    rows = [{"splitter.size": size, "query.top_k": k} for size, k in ((100, 1), (100, 2), (300, 1))]
    assert cost(study)(rows) == pytest.approx([0, 1.0, 5.0 + 1.5])
    assert cost(optuna.create_study())(rows) == pytest.approx([0, 0, 0])
    study.set_user_attr("stored", [[rows[2], {"indexing": 9.0, "evaluation": 4.0}]])
    assert cost(study)([rows[2], {"splitter.size": 300, "query.top_k": 2}]) == pytest.approx([0, 4.0])
