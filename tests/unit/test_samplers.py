"""The sampler over agreement: what it learns of a space, what it believes of values, what it proposes."""

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

import rag_opt.samplers
from rag_opt.samplers import GreedySampler, RagSampler
from rag_opt.samplers.gaussian_process import compute_distances, expected_improvement, fit_process, sample_prior
from rag_opt.samplers.space import ABSENT, infer_space, merge_distributions

Tree = Sequence[tuple[str, Sequence[Any], Mapping[Any, Any]]]


def trees(prefix: str = "p", depth: int = 2) -> st.SearchStrategy[Tree]:
    """Finite conditional spaces: parameters with choices, and for each choice further parameters."""

    def level(names: list[str]) -> st.SearchStrategy[Tree]:
        return st.tuples(*(one(name) for name in names))

    def one(name: str) -> st.SearchStrategy[tuple[str, Sequence[Any], Mapping[Any, Any]]]:
        choices = st.sampled_from([("a", "b"), ("a", "b", "c"), (1, 2, 4), (False, True)])
        if not depth:
            return st.tuples(st.just(name), choices, st.just({}))
        below = trees(f"{name}.", depth - 1)
        return choices.flatmap(
            lambda values: st.tuples(
                st.just(name), st.just(values), st.dictionaries(st.sampled_from(values), below, max_size=1)
            )
        )

    return st.integers(1, 2).flatmap(lambda count: level([f"{prefix}{index}" for index in range(count)]))


def suggested(trial: Any, tree: Tree) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values, below in tree:
        found[name] = trial.suggest_categorical(name, values)
        found |= suggested(trial, below.get(found[name], ()))
    return found


def size_of(tree: Tree) -> int:
    return int(np.prod([sum(size_of(below.get(value, ())) for value in values) for _, values, below in tree]))


def score(params: Mapping[str, Any]) -> float:
    """Anything that depends on all of them."""
    return float(sum(len(name) * (str(value).encode()[0] % 7) for name, value in params.items()))


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 5))
def test_nothing_is_measured_twice_while_something_is_unseen(tree: Tree, seed: int) -> None:
    count = min(size_of(tree), 40)
    study = optuna.create_study(sampler=RagSampler(seed=seed, n_startup_trials=3))
    study.optimize(lambda trial: score(suggested(trial, tree)), n_trials=count + 2)
    told = [tuple(sorted(trial.params.items(), key=str)) for trial in study.trials]
    startup = len(set(told[:3]))  # the beginning draws parameter by parameter
    assert len(set(told[3:])) >= count - 3
    assert len(set(told)) == min(size_of(tree), startup + count - 1)


def branching(trial: Any) -> float:
    """hybrid_weight exists for hybrid alone, and matters."""
    method = trial.suggest_categorical("method", ["bm25", "dense", "hybrid"])
    top_k = trial.suggest_int("top_k", 1, 20)
    value = {"bm25": 0.2, "dense": 0.3, "hybrid": 0.3}[method] + 0.002 * top_k
    if method == "hybrid":
        weight = trial.suggest_float("weight", 0.0, 1.0)
        value += 0.4 - (weight - 0.63) ** 2
    return value


def test_the_conditions_of_a_space_are_learnt() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(branching, n_trials=30)
    space = infer_space([t.params for t in study.trials], merge_distributions(t.distributions for t in study.trials))
    names = [axis.name for axis in space.axes]
    assert names == ["method", "top_k", "weight"]
    assert space.conditions[:2] == (None, None)
    condition = space.conditions[2]
    assert condition is not None
    assert (condition.parents, condition.exists) == ((0,), frozenset({(2.0,)}))
    drawn = space.sample_units(np.random.default_rng(0), 200)
    assert ((drawn[:, 2] == ABSENT) == (drawn[:, 0] != 2)).all()


def test_a_condition_may_need_two_parents() -> None:
    def asked(trial: Any) -> float:
        a, b = (trial.suggest_categorical(name, [0, 1, 2]) for name in "ab")
        return float(trial.suggest_float("c", 0, 1)) if (a, b) in {(1, 2), (2, 0)} else 0.0

    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(asked, n_trials=60)
    condition = infer_space(
        [t.params for t in study.trials], merge_distributions(t.distributions for t in study.trials)
    ).conditions[2]
    assert condition is not None
    assert (condition.parents, condition.exists) == ((0, 1), frozenset({(1.0, 2.0), (2.0, 0.0)}))


def test_what_does_not_exist_has_no_influence() -> None:
    """Values given for parameters that a trial never asks for change no proposal."""

    def proposals(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=1))
        for method, top_k in (("bm25", 3), ("dense", 9), ("bm25", 12), ("dense", 2), ("hybrid", 5)):
            given = {"method": method, "top_k": top_k, "weight": 0.5}
            study.enqueue_trial(given | (extra if method != "hybrid" else {}))
        study.optimize(branching, n_trials=12)
        return [trial.params for trial in study.trials]

    assert proposals({}) == proposals({"weight": 0.9, "other": 3})


def test_conditional_parameters_are_modelled_not_drawn() -> None:
    found = []
    for seed in range(5):
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=seed))
        study.optimize(branching, n_trials=25)
        found.append(study.best_value)
        late = [t for t in study.trials[8:] if t.params["method"] == "hybrid"]
        assert len(late) > 10, "the best branch is where it looks"
    assert np.mean(found) > 0.73  # the optimum is 0.74; at random 0.69
    random = [_best(RandomSampler(seed=seed)) for seed in range(5)]
    assert np.mean(found) > np.mean(random)


def _best(sampler: optuna.samplers.BaseSampler) -> float:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(branching, n_trials=25)
    return float(study.best_value)


def test_a_study_that_is_stopped_goes_on_as_if_it_had_not_been() -> None:
    def run(pieces: Sequence[int]) -> list[dict[str, Any]]:
        study = optuna.create_study(direction="maximize")
        for count in pieces:
            study.sampler = RagSampler(seed=3)
            study.optimize(branching, n_trials=count)
        return [trial.params for trial in study.trials]

    assert run([15]) == run([1] * 15) == run([4, 11])


@pytest.mark.parametrize("pending", [1, 4])
def test_others_trials_under_way_are_left_to_them(pending: int) -> None:
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    study.optimize(branching, n_trials=8)
    asked = []
    for _ in range(pending + 1):
        trial = study.ask()
        branching(trial)
        asked.append(tuple(trial.params.items()))
    assert len(set(asked)) == pending + 1


def test_a_pruned_trial_counts_less_than_a_whole_one() -> None:
    """Four pruned trials whose partial values flatter a branch do not keep the sampler there."""
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    space = {"method": CategoricalDistribution(["good", "flattered"]), "x": FloatDistribution(0, 1)}
    for x in np.linspace(0, 1, 6):
        study.add_trial(
            optuna.create_trial(params={"method": "good", "x": x}, distributions=space, value=0.6 + 0.01 * x)
        )
    for x in (0.1, 0.5, 0.9):
        told = {"state": TrialState.PRUNED, "intermediate_values": {0: 0.9}}
        study.add_trial(optuna.create_trial(params={"method": "flattered", "x": x}, distributions=space, **told))
        study.add_trial(
            optuna.create_trial(params={"method": "flattered", "x": x + 0.01}, distributions=space, value=0.3)
        )
    trial = study.ask(space)
    assert trial.params["method"] == "good"


def test_constraints_are_kept_where_they_can_be() -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("small", x - 0.4)
        return float(x)

    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    study.optimize(objective, n_trials=30)
    late = [trial.params["x"] for trial in study.trials[15:]]
    assert np.mean(np.array(late) <= 0.41) > 0.9
    feasible = [trial.params["x"] for trial in study.trials if trial.params["x"] <= 0.4]
    assert max(feasible) > 0.38


def test_several_objectives_spread_over_the_front() -> None:
    def objective(trial: Any) -> tuple[float, float]:
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        return x, (1 - x**2) * (1 - abs(y - 0.3))

    def volume(sampler: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
        study.optimize(objective, n_trials=30)
        front = sorted(((t.values[0], t.values[1]) for t in study.best_trials), reverse=True)
        steps = zip([(1.0, 0.0), *front], front, strict=False)
        return float(sum(x * (y - before) for (_, before), (x, y) in steps if y > before))

    ours = np.mean([volume(RagSampler(seed=seed)) for seed in range(3)])
    assert ours > np.mean([volume(RandomSampler(seed=seed)) for seed in range(3)])
    assert ours > 0.6  # of 2/3


def earlier_study(path: Path, sign: float) -> Mapping[str, str]:
    storage = f"sqlite:///{path}/earlier{sign}.db"
    study = optuna.create_study(study_name="earlier", storage=storage, direction="maximize", sampler=RandomSampler(0))
    study.optimize(lambda trial: sign * branching(trial), n_trials=30)
    return {"storage": storage, "study_name": "earlier"}


def test_an_earlier_study_helps_and_a_misleading_one_is_outgrown(tmp_path) -> None:
    def curve(earlier: Sequence[Mapping[str, str]]) -> Any:
        found = []
        for seed in range(6):
            study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=seed, earlier=earlier))
            study.optimize(branching, n_trials=20)
            found.append(np.maximum.accumulate([trial.value for trial in study.trials]))
        return np.mean(found, axis=0)

    alone, helped, misled = (curve(e) for e in ([], [earlier_study(tmp_path, 1)], [earlier_study(tmp_path, -1)]))
    assert helped[2] > alone[2] + 0.05
    assert misled[-1] > 0.95 * alone[-1]


def test_cheap_configurations_come_first_where_time_counts() -> None:
    space = {"a": CategoricalDistribution(["cheap", "dear"]), "x": IntDistribution(0, 30)}

    def seconds(study: optuna.Study) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
        assert study.trials
        return lambda rows: np.array([1.0 if params["a"] == "cheap" else 1000.0 for params in rows])

    def dear(cost: Any, seed: int) -> int:
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=seed, cost=cost))
        for _ in range(10):
            trial = study.ask(space)
            study.tell(trial, float(trial.params["x"]))
        return sum(trial.params["a"] == "dear" for trial in study.trials[5:])

    assert sum(dear(seconds, seed) for seed in range(5)) < 0.5 * sum(dear(None, seed) for seed in range(5))


def test_numbers_outside_a_narrower_range_do_no_harm() -> None:
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    for low, high in [(0, 10)] * 8 + [(20, 30)] * 8 + [(3, 5)] * 4:
        trial = study.ask({"x": IntDistribution(low, high), "y": FloatDistribution(low, high)})
        study.tell(trial, float(trial.params["x"]))
        assert low <= trial.params["x"] <= high


def configurations(rows: int, seed: int) -> tuple[Any, Any]:
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    study.optimize(branching, n_trials=rows)
    space = infer_space([t.params for t in study.trials], merge_distributions(t.distributions for t in study.trials))
    return space, space.to_units([t.params for t in study.trials])


@given(st.integers(2, 25), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_the_kernel_is_one(rows: int, seed: int) -> None:
    """Positive, 1 for a configuration with itself, symmetric, between 0 and 1."""
    space, units = configurations(rows, seed)
    apart = compute_distances(space.axes, units, units)
    assert apart.min() >= 0
    assert apart.max() <= 1
    kernels = sample_prior(np.random.default_rng(seed), 8, len(space.axes)).compute_kernel(apart)
    assert np.allclose(kernels, kernels.swapaxes(1, 2))
    assert np.allclose(np.diagonal(kernels, axis1=1, axis2=2), 1)
    assert np.linalg.eigvalsh(kernels).min() > -1e-8


def test_the_process_says_what_the_textbook_says() -> None:
    """Against the formulas of a Gaussian process, one draw at a time (Rasmussen and Williams 2006, 2.25 and 2.26)."""
    space, units = configurations(12, 3)
    rng = np.random.default_rng(0)
    targets, noise = rng.normal(size=9), rng.uniform(1, 4, 9)
    known, new = units[:9], units[9:]
    draws = sample_prior(rng, 5, len(space.axes))
    process = fit_process(draws, compute_distances(space.axes, known, known), targets, noise, keep=5)
    mean, deviation = process.predict(compute_distances(space.axes, new, known))
    assert process.weights.sum() == pytest.approx(1)
    for row in range(5):
        one = process.draws.select_rows(np.array([row]))
        inside = one.compute_kernel(compute_distances(space.axes, known, known))[0] + np.diag(
            one.noise[0] * noise + 1e-6
        )
        cross = one.compute_kernel(compute_distances(space.axes, new, known))[0]
        assert mean[row] == pytest.approx(cross @ np.linalg.solve(inside, targets))
        spread = 1 - np.diag(cross @ np.linalg.solve(inside, cross.T))
        scale = (1 + targets @ np.linalg.solve(inside, targets) / 2) / (2 + 9 / 2)
        assert deviation[row] == pytest.approx(np.sqrt(spread * scale))


def test_expected_improvement_is_what_is_expected() -> None:
    space, units = configurations(12, 4)
    draws = sample_prior(np.random.default_rng(0), 1, len(space.axes))
    process = fit_process(draws, compute_distances(space.axes, units, units), np.arange(12.0), np.ones(12), keep=1)
    mean, deviation, best = np.array([[0.2, -0.5]]), np.array([[0.3, 1.0]]), np.array([0.4])
    drawn = np.random.default_rng(0).normal(mean[0], deviation[0], (400_000, 2))
    simulated = np.maximum(drawn - best, 0).mean(axis=0)
    assert expected_improvement(process, mean, deviation, best) == pytest.approx(simulated, rel=0.02)


def test_greedy_goes_through_one_parameter_after_the_other() -> None:
    space = {"b": CategoricalDistribution([0, 1, 2]), "a": CategoricalDistribution([0, 1, 2])}
    study = optuna.create_study(direction="maximize", sampler=GreedySampler(first=["a"], seed=0))
    for _ in range(5):
        trial = study.ask(space)
        study.tell(trial, 10.0 * trial.params["a"] + trial.params["b"])
    first, *others = (trial.params for trial in study.trials)
    assert {others[0]["a"], others[1]["a"], first["a"]} == {0, 1, 2}
    assert {row["b"] for row in (first, *others[:2])} == {first["b"]}
    assert [row["a"] for row in others[2:]] == [2, 2]
    assert study.best_params == {"a": 2, "b": 2}


def test_they_need_nothing_but_optuna_numpy_and_scipy() -> None:
    folder = Path(rag_opt.samplers.__file__).parent
    standard = {"collections", "dataclasses", "datetime", "functools", "itertools", "math", "secrets", "threading"}
    standard |= {"contextlib", "typing", "zlib"}
    for path in folder.glob("*.py"):
        if path.name == "stock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                allowed = standard | {"__future__", "optuna", "numpy", "scipy"}
                assert name.partition(".")[0] in allowed or name.startswith("rag_opt.samplers."), (path.name, name)


def test_the_expected_gain_falls_to_nothing_as_everything_is_measured() -> None:
    space = {"a": CategoricalDistribution(list(range(6))), "b": CategoricalDistribution(list(range(5)))}
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    gains = []
    for _ in range(30):
        trial = study.ask(space)
        study.tell(trial, trial.params["a"] + 0.1 * trial.params["b"])
        gains.append(RagSampler(seed=0).expected_gain(study))
    assert np.isnan(gains[0])
    assert gains[5] > gains[15] > gains[28]
    assert gains[29] == 0


def distinct(study: optuna.Study) -> int:
    return len({tuple(sorted(trial.params.items())) for trial in study.trials})


def test_what_fails_is_not_drawn_for_ever() -> None:
    space = {"a": CategoricalDistribution([0, 1, 2]), "b": CategoricalDistribution([0, 1, 2])}
    study = optuna.create_study(sampler=RagSampler(seed=0))
    for _ in range(9):
        trial = study.ask(space)
        study.tell(trial, float("nan") if trial.params["a"] == 1 else trial.params["b"])
    assert distinct(study) == 9


@pytest.mark.parametrize(
    "wide", [IntDistribution(1, 5000, log=True), IntDistribution(0, 1500), FloatDistribution(0, 1, step=0.0005)]
)
def test_many_steps_are_no_continuum(wide: Any) -> None:
    study = optuna.create_study(sampler=RagSampler(seed=0))
    for _ in range(25):
        trial = study.ask({"a": wide, "b": CategoricalDistribution([0, 1])})
        study.tell(trial, abs(float(trial.params["a"]) - float(wide.low)))
    assert distinct(study) == 25


def test_a_space_of_many_branches_is_measured_as_a_whole() -> None:
    def asked(trial: Any) -> float:
        branch = trial.suggest_categorical("branch", list(range(8)))
        if not branch:
            return float(sum(trial.suggest_categorical(f"x{index}", [0, 1, 2]) for index in range(3)))
        return float(trial.suggest_categorical(f"y{branch}", [0, 1, 2]))

    study = optuna.create_study(sampler=RagSampler(seed=0))
    study.optimize(asked, n_trials=27 + 7 * 3)
    assert distinct(study) == len(study.trials)


def test_a_range_that_depends_on_another_value_stays_a_parameter() -> None:
    """Optuna advises against such ranges; what a value allows is not learnt, so some draws repeat."""
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    study.optimize(lambda t: t.suggest_int("k", 0, [4, 0, 3][t.suggest_int("m", 0, 2)]), n_trials=10)
    assert distinct(study) >= 6


def test_choices_that_python_takes_for_equal_are_one() -> None:
    study = optuna.create_study(sampler=RagSampler(seed=0))
    for _ in range(12):
        trial = study.ask({"a": CategoricalDistribution([False, 0, None, "x"]), "b": IntDistribution(0, 3)})
        study.tell(trial, trial.params["b"])
    assert len({(str(t.params["a"]), t.params["b"]) for t in study.trials}) == 12


def test_constraints_that_can_not_be_measured_are_broken() -> None:
    def objective(trial: Any) -> float:
        a, b = trial.suggest_categorical("a", [0, 1, 2, 3]), trial.suggest_int("b", 0, 9)
        trial.set_constraint("fits", float("inf") if a > 1 else -1.0)
        return float(a + 0.1 * b)

    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    study.optimize(objective, n_trials=14)
    assert study.best_value == 1.9
    assert sum(trial.params["a"] > 1 for trial in study.trials[5:]) <= 2


@pytest.mark.parametrize("reason", ["raises", "nan"])
def test_what_always_fails_is_left_alone(reason: str) -> None:
    """Of three embedders one never works."""

    def objective(trial: Any) -> float:
        embedder = trial.suggest_categorical("embedder", ["a", "b", "broken"])
        value = float(trial.suggest_int("size", 1, 20) + trial.suggest_int("k", 1, 10))
        if embedder != "broken":
            return value
        if reason == "raises":
            raise RuntimeError("out of memory")
        return float("nan")

    failed = []
    for seed in range(3):
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=seed))
        study.optimize(objective, n_trials=30, catch=RuntimeError)
        failed.append(sum(trial.state == TrialState.FAIL for trial in study.trials))
        assert study.best_value == 30
    assert max(failed) <= 10  # at random 10 on average, and more while it is what is known least


def test_greedy_goes_on_after_a_failure() -> None:
    study = optuna.create_study(direction="maximize", sampler=GreedySampler(seed=1))
    for number in range(4):
        trial = study.ask({"a": CategoricalDistribution([0, 1, 2, 3]), "b": CategoricalDistribution([0, 1, 2, 3])})
        study.tell(trial, None if number < 3 else 1.0, TrialState.FAIL if number < 3 else None)
    assert distinct(study) > 1


def test_threads_are_given_different_configurations() -> None:
    def objective(trial: Any) -> float:
        return float(sum(trial.suggest_categorical(name, [0, 1, 2, 3]) for name in "abcd"))

    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    study.optimize(objective, n_trials=40, n_jobs=4)
    assert distinct(study) >= 39
    one, two = study.ask(), study.ask()
    assert one.relative_params != two.relative_params
    objective(two)
    objective(one)
    assert one.params != two.params


@pytest.mark.parametrize("huge", [1e200, 1.7e308])
def test_a_huge_penalty_is_a_penalty(huge: float) -> None:
    def objective(trial: Any) -> float:
        a, b = trial.suggest_categorical("a", list("uvwx")), trial.suggest_int("b", 0, 9)
        return huge if a in "uv" else b

    found = []
    for seed in range(3):
        study = optuna.create_study(sampler=RagSampler(seed=seed))
        study.optimize(objective, n_trials=20)
        found.append(sum(t.params["a"] in "uv" for t in study.trials))
    assert max(found) <= 6


def test_while_nothing_is_known_of_values_the_space_is_covered() -> None:
    """All trials are pruned before they say anything."""
    study = optuna.create_study(sampler=RagSampler(seed=0))
    for _ in range(12):
        study.tell(study.ask({name: CategoricalDistribution(list("abcd")) for name in "xyz"}), state=TrialState.PRUNED)
    for name in "xyz":
        assert {trial.params[name] for trial in study.trials[:8]} == set("abcd")
    assert distinct(study) == 12


def test_an_earlier_study_without_a_parameter_says_nothing_of_when_it_exists(tmp_path) -> None:
    """It was fixed there."""
    storage = f"sqlite:///{tmp_path}/earlier.db"
    names = CategoricalDistribution([0, 1, 2])
    before = optuna.create_study(study_name="e", storage=storage, sampler=RandomSampler(0))
    for _ in range(15):
        before.tell(before.ask(dict.fromkeys("ab", names)), 1.0)
    for seed in range(3):
        given = [{"storage": storage, "study_name": "e"}]
        study = optuna.create_study(sampler=RagSampler(seed=seed, earlier=given))
        for _ in range(8):
            trial = study.ask(dict.fromkeys("abc", names))
            if trial.number:
                assert set(trial.relative_params) == {"a", "b", "c"}
            study.tell(trial, trial.params["c"])


def test_an_earlier_study_counts_by_its_own_direction_and_as_it_was(tmp_path) -> None:
    storage = f"sqlite:///{tmp_path}/earlier.db"
    space = {"a": CategoricalDistribution(list(range(6))), "b": CategoricalDistribution(list(range(5)))}
    before = optuna.create_study(study_name="e", storage=storage, sampler=RandomSampler(0), direction="minimize")
    for _ in range(25):
        trial = before.ask(space)
        before.tell(trial, -10.0 * trial.params["a"] - trial.params["b"])
    sampler = RagSampler(seed=0, earlier=[{"storage": storage, "study_name": "e"}])
    study = optuna.create_study(direction="maximize", sampler=sampler)
    trial = study.ask(space)
    study.tell(trial, trial.params["a"] + 0.1 * trial.params["b"])
    second = study.ask(space)
    assert second.params["a"] == 5
    study.tell(second, state=TrialState.FAIL)
    later = before.ask(space)
    before.tell(later, 1000.0)
    assert len(sampler.get_earlier(study.trials[0].datetime_start)[0].trials) == 25
    fresh = RagSampler(seed=0, earlier=[{"storage": storage, "study_name": "e"}])
    assert len(fresh.get_earlier()[0].trials) == 26
    several = optuna.create_study(directions=["maximize", "minimize"], sampler=fresh)
    with pytest.raises(ValueError, match="has 1 objectives, not 2"):
        several.ask(space)


def test_of_a_large_listed_space_the_neighbourhood_is_looked_at() -> None:
    """6,561 configurations, of which 400 are looked at beside 100 trials: the best is found all the same."""

    def objective(trial: Any) -> float:
        return -float(sum(abs(trial.suggest_int(f"x{i}", 0, 8) - 3 - i) for i in range(4)))

    for seed in range(2):
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=seed))
        study.optimize(objective, n_trials=45)
        assert study.best_value == 0


@pytest.mark.parametrize("other", [CategoricalDistribution(["a", "b", "c"]), FloatDistribution(0, 1)])
def test_an_earlier_study_may_have_had_other_parameters_and_values(tmp_path, other: Any) -> None:
    storage = f"sqlite:///{tmp_path}/earlier.db"
    earlier = optuna.create_study(study_name="e", storage=storage, sampler=RandomSampler(0))
    for _ in range(12):
        trial = earlier.ask({"x": other, "gone": CategoricalDistribution([1, 2]), "y": IntDistribution(0, 3)})
        earlier.tell(trial, float(trial.params["y"]))
    study = optuna.create_study(sampler=RagSampler(seed=0, earlier=[{"storage": storage, "study_name": "e"}]))
    for _ in range(8):
        trial = study.ask({"x": CategoricalDistribution(["a", "b"]), "y": IntDistribution(0, 3)})
        study.tell(trial, float(trial.params["y"]))
    assert distinct(study) == 8


def test_numbers_as_far_apart_as_floats_go() -> None:
    study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0))
    for _ in range(9):
        trial = study.ask({"a": FloatDistribution(1e-200, 1e200, log=True), "b": FloatDistribution(-1.5e308, 1.5e308)})
        study.tell(trial, np.log10(trial.params["a"]))
    assert distinct(study) == 9


def test_trials_whose_process_ended_count_for_nothing() -> None:
    space = {"a": CategoricalDistribution(list(range(5))), "b": IntDistribution(0, 9)}

    def proposals(interrupted: bool) -> list[dict[str, Any]]:
        study = optuna.create_study(direction="maximize", sampler=RagSampler(seed=0, ignored="interrupted"))
        for number in range(10):
            if interrupted and number in (2, 7):
                lost = study.ask(space)
                lost.set_user_attr("interrupted", True)
                study.tell(lost, state=TrialState.FAIL)
            trial = study.ask(space)
            study.tell(trial, trial.params["a"] + 0.1 * trial.params["b"])
        return [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]

    assert proposals(True) == proposals(False)


def test_greedy_climbs_from_what_keeps_the_constraints() -> None:
    def objective(trial: Any) -> float:
        a, b = trial.suggest_int("a", 0, 4), trial.suggest_int("b", 0, 4)
        trial.set_constraint("small", a - 2)
        return float(a + b)

    study = optuna.create_study(direction="maximize", sampler=GreedySampler(seed=0))
    study.optimize(objective, n_trials=14)
    assert study.best_trial.params == {"a": 2, "b": 4}
