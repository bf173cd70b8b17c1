"""How many configurations a space holds, which they are, and what lies beside it."""

from __future__ import annotations

from itertools import product

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from rag_opt.analysis import history
from rag_opt.analysis.history import count_tried, select_untried
from rag_opt.config.enumeration import count_configurations, include_values, iterate_configurations, move_to_nearest
from rag_opt.config.sweep_grammar import parse_space

CONDITIONAL = {
    "retriever": "choice(bm25, dense)",
    "retriever.k": {"values": "range(1, 4)", "when": {"retriever": "bm25"}},
    "splitter.size": "choice(10, 20, 40)",
    "splitter.overlap": {"values": "range(0, 21, 10)", "below": "splitter.size"},
}


def test_a_conditional_space_is_counted_as_it_is() -> None:
    space = parse_space(CONDITIONAL)
    # Overlaps: 1 below 10, 2 below 20, 3 below 40; retrievers: 3 of bm25 and one dense.
    assert count_configurations(space, 1000) == 4 * 6 == len(list(iterate_configurations(space)))
    assert count_configurations(space, 5) == 5
    assert count_configurations(space, 24) == 24


@pytest.mark.parametrize("values", ["interval(0.0, 1.0)", "tag(log, interval(0.1, 1.0))"])
def test_real_numbers_have_no_end(values: str) -> None:
    assert count_configurations(parse_space({"a": "choice(x, y)", "b": values}), 50) == 50


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40))
def test_sizes_are_products(one: int, other: int, limit: int) -> None:
    space = parse_space({"a": f"range(0, {one})", "b": f"choice({', '.join(f'v{i}' for i in range(other))})"})
    found = [tuple(values.values()) for values in iterate_configurations(space)]
    assert sorted(found) == sorted(product(range(one), [f"v{i}" for i in range(other)]))
    assert count_configurations(space, limit) == min(limit, one * other)


def test_every_draw_is_one_of_them() -> None:
    space, study = parse_space(CONDITIONAL), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    known = [tuple(sorted(values.items(), key=str)) for values in iterate_configurations(space)]
    for _ in range(40):
        assert tuple(sorted(space.suggest(study.ask()).items(), key=str)) in known


def test_what_was_drawn_is_counted_once() -> None:
    space, study = parse_space({"a": "range(0, 3)"}), optuna.create_study()
    for value in (1, 1, 2):
        study.enqueue_trial({"a": value}, user_attrs={"origin": "seed"})
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert count_tried(study) == 2
    assert select_untried(study, iterate_configurations(space)) == [{"a": 0}]


def test_a_number_of_the_configuration_joins_its_choices() -> None:
    space, told = include_values(
        parse_space({"splitter.chunk_size": "choice(25, 50, 200)"}), {"splitter.chunk_size": 100}
    )
    joined = space.parameters[0].distribution
    assert isinstance(joined, CategoricalDistribution)
    assert joined.choices == (25, 50, 100, 200)
    assert told == ["splitter.chunk_size=100 is not in choice(25, 50, 200): added, for trial 0 measures it"]
    again, told = include_values(space, {"splitter.chunk_size": 100})
    assert (again, told) == (space, [])


@pytest.mark.parametrize("own", ["hybrid", True, None])
def test_names_do_not_join_others(own: object) -> None:
    space = parse_space({"retriever": "choice(bm25, dense)", "n": "choice(1, 2)"})
    assert include_values(space, {"retriever": own, "n": 1}) == (space, [])


@pytest.mark.parametrize(
    ("values", "own", "moved"),
    [
        ("range(0.1, 1.0, 0.1)", 0.75, 0.7),
        ("range(3, 21)", 30, 20),
        ("range(0, 61, 20)", 29, 20),
        ("interval(0.0, 0.5)", 0.75, 0.5),
        ("interval(0.0, 1.0)", 0.75, 0.75),
    ],
)
def test_a_number_beside_its_range_moves_to_the_nearest(values: str, own: float, moved: float) -> None:
    found, told = move_to_nearest(parse_space({"retriever.b": values}), {"retriever.b": own})
    assert found["retriever.b"] == pytest.approx(moved)
    assert bool(told) == (own != moved)


def test_what_is_below_another_moves_below_it() -> None:
    own = {"retriever": "dense", "splitter.size": 10, "splitter.overlap": 20}
    assert move_to_nearest(parse_space(CONDITIONAL), own)[0] == {**own, "splitter.overlap": 0}


def test_without_repeats_trials_keep_their_numbers() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=0.1))
    study.add_trial(create_trial(value=0.1, user_attrs={"repeats": 0}))
    study.add_trial(create_trial(value=0.3))
    found = history.drop_repeats(study).get_trials(states=(TrialState.COMPLETE,))
    assert [(trial.number, trial.value) for trial in found] == [(0, 0.1), (2, 0.3)]
