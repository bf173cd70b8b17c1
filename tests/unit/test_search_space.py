"""The search space: its grammar, its conditions, and that what it yields is what Hydra reads."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.config.compose import parse_overrides
from rag_opt.config.overrides import format_overrides, to_config_values
from rag_opt.config.sweep_grammar import parse_space
from rag_opt.errors import SearchSpaceError

ROWS = {
    "retriever": "choice(bm25, dense, hybrid)",
    "retriever.top_k": "range(3, 21)",
    "retriever.fusion": {"values": "choice(weighted, rrf)", "when": {"retriever": "hybrid"}},
    "retriever.hybrid_weight": {
        "values": "interval(0.0, 1.0)",
        "when": {"retriever": "hybrid", "retriever.fusion": "weighted"},
    },
    "retriever.k1": {"values": "interval(0.4, 3.0)", "when": {"retriever": ["bm25", "hybrid"]}},
}


def suggest(rows: dict, **fixed: object) -> dict:
    """What a trial with these enqueued values is given."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(fixed)
    return parse_space(rows).suggest(study.ask())


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("choice(a, b)", CategoricalDistribution(["a", "b"])),
        ("choice(1, 2.5, true)", CategoricalDistribution([1, 2.5, True])),
        ("english,null", CategoricalDistribution(["english", None])),
        ("choice('a b', \"c,d\")", CategoricalDistribution(["a b", "c,d"])),
        ("range(3, 21)", IntDistribution(3, 20)),
        ("range(0, 61, 20)", IntDistribution(0, 60, step=20)),
        ("range(0, 60, 20)", IntDistribution(0, 40, step=20)),
        ("range(5)", IntDistribution(0, 4)),
        ("range(0.0, 1.0, 0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("range(0.2, 0.8, 0.2)", FloatDistribution(0.2, 0.6, step=0.2)),
        ("interval(0.0, 1.0)", FloatDistribution(0.0, 1.0)),
        ("tag(log, interval(0.001, 1))", FloatDistribution(0.001, 1.0, log=True)),
        ("tag(log, range(1, 101))", IntDistribution(1, 100, log=True)),
    ],
)
def test_hydras_grammar_becomes_optunas_distributions(text: str, distribution) -> None:
    assert parse_space({"key": text}).parameters[0].distribution == distribution


@given(st.integers(-50, 50), st.integers(1, 200), st.integers(1, 40), st.sampled_from([10, 100]))
def test_a_range_of_tenths_ends_before_its_end_as_one_of_whole_numbers_does(start, width, step, parts) -> None:
    """In floats some would hold their end, too (Hydra's own sweep from 0.1 to 0.4 by 0.1 does)."""
    wanted = range(start, start + width, step)
    made = parse_space({"key": f"range({start / parts}, {(start + width) / parts}, {step / parts})"})
    assert made.parameters[0].distribution == FloatDistribution(
        wanted[0] / parts, wanted[-1] / parts, step=step / parts
    )


def test_a_parameter_is_asked_for_only_where_it_exists() -> None:
    assert set(suggest(ROWS, retriever="dense")) == {"retriever", "retriever.top_k"}
    assert set(suggest(ROWS, retriever="bm25")) == {"retriever", "retriever.top_k", "retriever.k1"}
    fused = {"retriever": "hybrid", "retriever.fusion": "rrf"}
    assert set(suggest(ROWS, **fused)) == {"retriever", "retriever.top_k", "retriever.fusion", "retriever.k1"}


def test_children_may_stand_before_their_parents() -> None:
    backwards = dict(reversed(ROWS.items()))
    names = [p.name for p in parse_space(backwards).parameters]
    assert names.index("retriever") < names.index("retriever.fusion") < names.index("retriever.hybrid_weight")
    assert parse_space(backwards).fingerprint == parse_space(ROWS).fingerprint


def test_below_holds_for_every_draw() -> None:
    rows = {"size": "choice(10, 30, 50)", "overlap": {"values": "range(0, 41, 10)", "below": "size"}}
    space = parse_space(rows)
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for _ in range(60):
        trial = study.ask()
        values = space.suggest(trial)
        assert values["overlap"] < values["size"]
        study.tell(trial, values["overlap"])
    assert {to_config_values(t.params)["overlap"] for t in study.trials} >= {0, 20, 40}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "nothing to search"),
        ({"a": "range(5, 5)"}, "a: range.*empty"),
        ({"a": "range(5, 3)"}, "a: range.*empty"),
        ({"a": "interval(1.0, 1.0)"}, "a: interval.*empty"),
        ({"a": "interval(2, 1)"}, "a: interval.*empty"),
        ({"a": "choice(x, x)"}, "a: .*twice"),
        ({"a": "choice()"}, "a: .*grammar"),
        ({"a": "choice([1, 2], b)"}, "a: a choice must be"),
        ({"a": "5"}, "a: choice.*expected, not '5'"),
        ({"a": "uniform(0, 1)"}, "a: .*grammar"),
        ({"a": "choise(x, y)"}, "a: .*grammar"),
        ({"a": "choice(x, null)"}, "a: .*write the choices side by side: x,null"),
        ({"a": "tag(log, interval(0, 1))"}, "a: "),
        ({"a": {"value": "choice(x)"}}, "a: unknown key 'value'; did you mean 'values'"),
        ({"a": {"when": {"b": "x"}}}, "a: `values` is missing"),
        ({"a": {"values": "choice(x, y)", "when": "b"}}, "a: `when` must be"),
        ({"a": {"values": "choice(x)", "when": {"b": "x"}}}, "a: its parent 'b' is not in the space"),
        ({"b": "choice(x, y)", "a": {"values": "choice(x)", "when": {"b": "z"}}}, "a: `when` can never hold: b=z"),
        ({"b": "range(0, 3)", "a": {"values": "choice(x)", "when": {"b": 7}}}, "a: `when` can never hold"),
        (
            {"a": {"values": "choice(x)", "when": {"b": "x"}}, "b": {"values": "choice(x)", "when": {"a": "x"}}},
            "circle",
        ),
        ({"a": "range(1, 4)", "b": {"values": "range(5, 9)", "below": "a"}}, "b: no value of range.*below a=1"),
        ({"a": "range(1, 4)", "b": {"values": "choice(1, 2)", "below": "a"}}, "b: `below` needs a range"),
        ({"a": "choice(x, y)", "b": {"values": "range(5)", "below": "a"}}, "b: `below` needs numbers"),
    ],
)
def test_what_can_never_work_is_refused_with_its_key(rows: dict, message: str) -> None:
    with pytest.raises(SearchSpaceError, match=message):
        list(parse_space(rows).iterate_corners())


def test_a_when_that_needs_both_of_two_exclusive_parents_is_refused() -> None:
    rows = {
        "retriever": "choice(bm25, dense)",
        "k1": {"values": "choice(1, 2)", "when": {"retriever": "bm25"}},
        "ef": {"values": "choice(10, 20)", "when": {"retriever": "dense"}},
        "both": {"values": "choice(x, y)", "when": {"k1": 1, "ef": 10}},
    }
    with pytest.raises(SearchSpaceError, match="both: `when.*can never hold"):
        list(parse_space(rows).iterate_corners())


def test_corners_show_every_choice_every_end_and_all_pairs_within_a_group() -> None:
    rows = ROWS | {"splitter.size": "choice(50, 100, 200)", "splitter.overlap": "range(0, 61, 20)"}
    space = parse_space(rows)
    corners = list(space.iterate_corners())
    seen = {item for corner in corners for item in corner.items()}
    assert {("retriever", "bm25"), ("retriever", "dense"), ("retriever.fusion", "rrf")} <= seen
    assert {("retriever.top_k", 3), ("retriever.top_k", 20), ("retriever.hybrid_weight", 1.0)} <= seen
    pairs = {(c["splitter.size"], c["splitter.overlap"]) for c in corners}
    assert pairs == {(size, overlap) for size in (50, 100, 200) for overlap in (0, 60)}
    assert any(c.get("retriever.k1") == 3.0 and c.get("retriever.hybrid_weight") == 0.0 for c in corners)
    assert all(space.select_active(corner) == corner for corner in corners)
    assert len(corners) <= 20


def test_a_parent_inside_a_range_can_hold() -> None:
    """The value that a condition needs is neither end of its parent's range."""
    rows = {"k": "range(1, 10)", "x": {"values": "choice(a, b)", "when": {"k": 5}}}
    assert any(corner.get("x") == "a" for corner in parse_space(rows).iterate_corners())


def test_fixing_a_parent_takes_the_children_that_can_not_exist_along() -> None:
    space = parse_space(ROWS).fix_parameters(["retriever"], {"retriever": "bm25"})
    assert [p.name for p in space.parameters] == ["retriever.top_k", "retriever.k1"]
    space = parse_space(ROWS).fix_parameters(["retriever"], {"retriever": "hybrid"})
    assert len(space.parameters) == 4


def test_the_fingerprint_sees_ranges_conditions_and_choices() -> None:
    prints = {parse_space(ROWS).fingerprint}
    for key, value in (
        ("retriever.top_k", "range(3, 22)"),
        ("retriever", "choice(bm25, hybrid, dense)"),
        ("retriever.k1", "interval(0.4, 3.0)"),
    ):
        prints.add(parse_space(ROWS | {key: value}).fingerprint)
    assert len(prints) == 4


values = (
    st.text(st.characters(codec="ascii", min_codepoint=32), max_size=12)
    | st.integers(-100, 100)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)


@given(values)
def test_words_say_exactly_the_value(value) -> None:
    """Hydra reads from a word the value that was put in, text that looks like a number or null included."""
    read = parse_overrides(format_overrides({"key": value}))[0].value()
    assert read == value
    assert type(read) is type(value)


def test_a_limited_parameter_is_recorded_with_its_own_range_and_read_back() -> None:
    space = parse_space({"size": "choice(10, 50)", "overlap": {"values": "range(0, 41, 10)", "below": "size"}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for values in ({"size": 10, "overlap": 0}, {"size": 50, "overlap": 40}):
        study.enqueue_trial(space.to_trial_params(values))
        trial = study.ask()
        assert space.suggest(trial) == values
        assert to_config_values(trial.params) == values
    assert set(study.trials[0].params) == {"size", "overlap up to 0"}
    assert set(study.trials[1].params) == {"size", "overlap"}
