"""What holds across collections: a mean whose interval holds it as often as it says, for few collections as well."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.analysis.collections import pool_differences

EFFECTS = st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 0.5)), min_size=2, max_size=8)


def test_a_published_example() -> None:
    """Five small trials, by hand: Q = 8.2556 with 4 degrees of freedom, C = 40.7119."""
    values, errors = [0.10, 0.30, 0.35, 0.65, 0.45], [0.30, 0.20, 0.25, 0.15, 0.10]
    weights = [1 / each**2 for each in errors]
    centre = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    q = sum(w * (v - centre) ** 2 for w, v in zip(weights, values, strict=True))
    c = sum(weights) - sum(w**2 for w in weights) / sum(weights)
    tau2 = max(0.0, (q - 4) / c)
    random = [1 / (each**2 + tau2) for each in errors]
    found = pool_differences(values, errors)
    assert found.tau == pytest.approx(math.sqrt(tau2))
    assert found.mean == pytest.approx(sum(w * v for w, v in zip(random, values, strict=True)) / sum(random))


def test_the_interval_holds_the_mean_in_95_of_100_meta_analyses() -> None:
    rng = np.random.default_rng(0)
    for tau in (0.0, 0.05):
        held = 0
        for _ in range(600):
            errors = rng.uniform(0.01, 0.05, 6)
            values = 0.02 + rng.normal(0, tau, 6) + rng.normal(0, errors)
            found = pool_differences(values, errors)
            held += found.low <= 0.02 <= found.high
        assert 0.925 <= held / 600 <= 0.995


@given(EFFECTS, st.floats(-2, 2), st.floats(0.1, 10))
def test_it_moves_and_scales_with_what_it_is_given(effects, shift: float, scale: float) -> None:
    values, errors = map(np.array, zip(*effects, strict=True))
    one = pool_differences(values, errors)
    other = pool_differences(scale * values + shift, scale * errors)
    assert other.mean == pytest.approx(scale * one.mean + shift, abs=1e-6)
    assert other.high - other.low == pytest.approx(scale * (one.high - one.low), rel=1e-5)
    assert one.low <= one.mean <= one.high
    assert min(values) - 1e-9 <= one.mean <= max(values) + 1e-9


def test_collections_that_agree_by_chance_make_no_interval_narrower_than_their_errors_do() -> None:
    found = pool_differences([0.02, 0.02, 0.02], [0.03, 0.03, 0.03])
    # Student's t with two degrees of freedom.
    assert found.high - found.mean == pytest.approx(4.302653 * 0.03 / math.sqrt(3))


def test_one_collection_has_no_interval_and_none_nothing() -> None:
    assert pool_differences([0.1], [0.02])[0] == 0.1
    assert math.isnan(pool_differences([0.1], [0.02]).low)
    assert math.isnan(pool_differences([], []).mean)


def test_a_certain_zero_among_others_is_weighed_and_breaks_nothing() -> None:
    found = pool_differences([0.0, 0.04, 0.06], [0.0, 0.02, 0.02])
    assert found == pool_differences([0.0, 0.04, 0.06], [0.02, 0.02, 0.02])
    assert found.mean == pytest.approx(0.1 / 3)
    assert pool_differences([0.0, 0.0], [0.0, 0.0])[:3] == pytest.approx((0, 0, 0), abs=1e-6)
