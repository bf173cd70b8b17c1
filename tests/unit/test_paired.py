"""Paired statistics: against hand-worked examples, against scipy, and by what they promise over many samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rag_opt.analysis import paired

SCORES = st.lists(st.floats(-1, 1), min_size=3, max_size=10)


def test_three_questions_by_hand() -> None:
    # Of the 8 ways to give 1, 2, 3 their signs two reach a sum of 6 or -6.
    assert paired.compute_p_value(np.array([1.0, 2.0, 3.0]), 0) == 2 / 8
    # 1, 2, -3 sums to 0: every pattern is as far from 0.
    assert paired.compute_p_value(np.array([1.0, 2.0, -3.0]), 0) == 1.0


def test_no_difference_and_no_questions_are_no_evidence() -> None:
    assert paired.compute_p_value(np.zeros(20), 0) == paired.compute_p_value(np.zeros(0), 0) == 1.0
    assert paired.bootstrap_interval(np.zeros(20), 0) == (0.0, 0.0)
    assert all(math.isnan(end) for end in paired.bootstrap_interval(np.array([0.3]), 0))
    assert paired.estimate_sample_size(np.zeros(9)) is None


@given(SCORES)
def test_the_randomisation_test_tries_all_signs(values: list[float]) -> None:
    """p is the share of sign patterns whose mean is at least as far from 0."""
    whole = np.array([round(value, 3) for value in values])
    patterns = (1 - 2 * ((np.arange(2 ** len(whole))[:, None] >> np.arange(len(whole))) & 1)) @ whole
    share = (np.abs(patterns) >= abs(whole.sum()) - 1e-9).mean()
    assert paired.compute_p_value(whole, 0) == pytest.approx(share)


def test_with_many_questions_it_agrees_with_students_paired_t() -> None:
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.04):
        values = generator.normal(shift, 0.2, 200)
        assert paired.compute_p_value(values, 0) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.015)


def test_the_interval_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).beta(0.5, 0.7, 300) - 0.4
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert paired.bootstrap_interval(values, 0) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_holm_by_hand() -> None:
    # 0.01 × 4, 0.02 × 3, then 0.03 × 2 and 0.04 × 1, which may not be less than those before.
    assert paired.adjust_holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert paired.adjust_holm([0.9, 0.8]) == [1.0, 1.0]
    assert paired.adjust_holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(values: list[float]) -> None:
    adjusted = paired.adjust_holm(values)
    assert all(after >= before for before, after in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_the_number_of_questions_gives_the_power_it_promises() -> None:
    generator = np.random.default_rng(0)
    needed = paired.estimate_sample_size(generator.normal(0.03, 0.2, 100_000))
    assert needed is not None
    shown = [stats.ttest_1samp(generator.normal(0.03, 0.2, needed), 0).pvalue < 0.04 for _ in range(600)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_tied_is_within_one_standard_error() -> None:
    best = np.array([0.5, 0.7, 0.9, 0.7])
    behind = np.array([0.1, -0.1, 0.1, 0.1])
    # The mean is 0.05, its standard error 0.05.
    assert paired.is_tied(best, best - behind, 1.0)
    assert not paired.is_tied(best, best - behind - 0.001, 1.0)
    assert paired.is_tied(-best, behind - best, -1.0)
    assert not paired.is_tied(best, np.full(4, np.nan), 1.0)


def test_95_percent_intervals_hold_the_truth_in_93_to_97_percent() -> None:
    generator = np.random.default_rng(8)
    held = 0
    for seed in range(1000):
        # As nDCG differs: mostly not at all, else by much, one way more often.
        changed = generator.random(100) < 0.4
        values = np.where(changed, generator.beta(0.8, 0.5, 100) - generator.beta(0.6, 0.5, 100), 0.0)
        low, high = paired.bootstrap_interval(values, seed, 1000)
        held += low <= 0.4 * (0.8 / 1.3 - 0.6 / 1.1) <= high
    assert 930 <= held <= 970


def test_groups_of_one_change_nothing() -> None:
    values = np.random.default_rng(4).normal(0.1, 1, 50)
    alone = np.arange(50, dtype=np.int32)[::-1]
    assert paired.bootstrap_interval(values, 3, groups=alone) == paired.bootstrap_interval(values, 3)
    assert paired.compute_p_value(values, 3, groups=alone) == paired.compute_p_value(values, 3)
    assert paired.estimate_sample_size(values, alone) == paired.estimate_sample_size(values)
    assert paired.count_wins(values, 1.0, alone) == paired.count_wins(values, 1.0)


def test_copies_are_one_observation() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, 40)
    copies, groups = np.repeat(values, 3), np.repeat(np.arange(40, dtype=np.int32), 3)
    assert paired.bootstrap_interval(copies, 3, groups=groups) == pytest.approx(paired.bootstrap_interval(values, 3))
    assert paired.compute_p_value(copies, 3, groups=groups) == paired.compute_p_value(values, 3)
    assert paired.estimate_sample_size(copies, groups) == paired.estimate_sample_size(values)
    assert paired.count_wins(copies, 1.0, groups) == paired.count_wins(values, 1.0)
    low, high = paired.bootstrap_interval(copies, 3)
    assert high - low < 0.65 * (paired.bootstrap_interval(values, 3)[1] - paired.bootstrap_interval(values, 3)[0])
    # Within one standard error of 40 questions, not of 120.
    behind = values - values.mean() + 0.8 * values.std(ddof=1) / math.sqrt(40)
    assert paired.is_tied(np.zeros(120), -np.repeat(behind, 3), 1.0, groups)
    assert not paired.is_tied(np.zeros(120), -np.repeat(behind, 3), 1.0)


def test_intervals_of_groups_hold_the_truth() -> None:
    """Questions in groups of 1 to 4 that vary together: 95 % of the intervals hold the mean; without groups far less."""
    generator = np.random.default_rng(2)
    held, naive = 0, 0
    for seed in range(300):
        sizes = generator.integers(1, 5, 60)
        groups = np.repeat(np.arange(60, dtype=np.int32), sizes)
        values = generator.normal(0.5, 0.2, 60)[groups] + generator.normal(0, 0.02, len(groups))
        low, high = paired.bootstrap_interval(values, seed, 500, groups=groups)
        held += low <= 0.5 <= high
        low, high = paired.bootstrap_interval(values, seed, 500)
        naive += low <= 0.5 <= high
    assert 0.92 <= held / 300 <= 0.98
    assert naive / 300 < 0.9
