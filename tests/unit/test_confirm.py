"""What dev selects and test confirms: words, and error rates over simulated studies without any model."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rag_opt.analysis import paired, verdict
from rag_opt.analysis.confirmation import (
    Confirmation,
    MeasuredConfiguration,
    _adjust_p_values,
    adjust_confirmations,
    build_confirmation,
)
from rag_opt.analysis.selection import Candidate, select_finalists
from rag_opt.analysis.verdict import explain_alike, explain_choice, format_evidence

QUESTIONS, CONFIGURATIONS = 40, 40


def scores(generator, quality: float, difficulty, noise: float = 0.2):
    return np.clip(difficulty + quality + generator.normal(0, noise, len(difficulty)), 0, 1)


def simulated(seed: int, spread: float, tests: int = 100, resamples: int = 500) -> tuple[Confirmation, list[float]]:
    """A study of 40 configurations; its confirmation, and every configuration's true mean."""
    generator = np.random.default_rng(seed)
    qualities = generator.normal(0.5, spread, CONFIGURATIONS)
    dev, test = (generator.normal(0, 0.2, count) for count in (QUESTIONS, tests))
    candidates = [
        Candidate(number, scores(generator, quality, dev), float(generator.integers(500, 3000)))
        for number, quality in enumerate(qualities)
    ]
    ordered = sorted(candidates, key=lambda each: -each.scores.mean())
    selection = select_finalists(ordered, 1.0, 3)
    numbers = list(dict.fromkeys([selection.best, selection.recommended, *selection.tied, 0]))
    measured = [
        MeasuredConfiguration(
            "baseline" if number == 0 else "tied",
            number,
            (),
            float(candidates[number].scores.mean()),
            candidates[number].cost,
            scores(generator, qualities[number], test),
        )
        for number in numbers
    ]
    truth = np.random.default_rng(99)
    hard = truth.normal(0, 0.2, 4000)
    true = [float(scores(truth, quality, hard).mean()) for quality in qualities]
    return build_confirmation("nDCG@10", 1.0, "tokens", selection, measured, seed, resamples), true


def test_equal_configurations_are_called_different_in_at_most_5_percent_of_400_studies() -> None:
    found = [simulated(seed, 0.0)[0] for seed in range(400)]
    assert sum(any(arm.adjusted <= 0.05 for arm in each.arms) for each in found) <= 20


def test_the_reported_gain_is_unbiased_where_the_dev_maximum_is_flattered() -> None:
    reported, flattered = [], []
    for seed in range(400):
        found, true = simulated(seed, 0.02, resamples=10)
        if found.selected_arm.role == "baseline":
            continue
        reported.append(found.selected_arm.difference - (true[found.recommended] - true[0]))
        flattered.append(found.arms[0].dev - true[found.arms[0].trial])
    assert abs(np.mean(reported)) <= 0.005
    assert 0.04 <= np.mean(flattered) <= 0.06


def test_a_true_gain_is_shown_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.uniform(0, 0.8, 120)
    ours = theirs + 0.1 + generator.normal(0, 0.1, 120)
    selection = select_finalists([Candidate(3, ours, 900.0)], 1.0, 0)
    arms = [
        MeasuredConfiguration("best", 3, ("a=1",), 0.6, 900.0, ours),
        MeasuredConfiguration("baseline", 0, (), 0.5, 800.0, theirs),
    ]
    found = build_confirmation("F1", 1.0, "tokens", selection, arms, 0)
    assert found.shown
    assert found.selected_arm.difference_low < 0.1 < found.selected_arm.difference_high
    assert "F1: better than the baseline by +0.0926 [" in format_evidence(found)
    assert sum(found.selected_arm.outcome) == 120


def test_less_may_be_better() -> None:
    ours, theirs = np.full(30, 5.0), np.linspace(8, 9, 30)
    selection = select_finalists([Candidate(1, ours, 5.0)], -1.0, 0)
    arms = [
        MeasuredConfiguration("best", 1, (), 5.0, 5.0, ours),
        MeasuredConfiguration("baseline", 0, (), 8.0, 8.0, theirs),
    ]
    found = build_confirmation("tokens", -1.0, "tokens", selection, arms, 0)
    assert found.shown
    assert found.selected_arm.outcome == (30, 0, 0)
    assert not build_confirmation("tokens", 1.0, "tokens", selection, arms, 0).shown
    assert build_confirmation("tokens", 1.0, "tokens", selection, arms, 0).worse


def confirmation(ours, theirs, cost: float = 1000.0, role: str = "best") -> Confirmation:
    selection = select_finalists([Candidate(4, np.asarray(ours), cost)], 1.0, 3)
    arms = [MeasuredConfiguration(role, 4, (), 0.5, cost, np.asarray(ours))]
    if theirs is not None:
        arms.append(MeasuredConfiguration("baseline", 0, (), 0.4, 900.0, np.asarray(theirs)))
    return build_confirmation("RR@10", 1.0, "tokens", selection, arms, 0)


def test_words_follow_the_evidence() -> None:
    generator = np.random.default_rng(5)
    theirs = generator.uniform(0, 1, 60)
    same = format_evidence(confirmation(theirs, theirs))
    assert same == "RR@10: no difference from the baseline on 60 questions the search never saw"
    unclear = format_evidence(confirmation(theirs + generator.normal(0.01, 0.2, 60), theirs))
    assert "no difference from the baseline could be shown on 60 questions" in unclear
    assert "would be needed" in unclear
    assert "RR@10: worse than the baseline by -0.2000 [" in format_evidence(confirmation(theirs - 0.2, theirs))
    assert "nothing can be shown with 1 questions" in format_evidence(confirmation([0.5], [0.4]))
    assert "the baseline was not completed" in format_evidence(confirmation(theirs, None))
    assert "the baseline stays" in format_evidence(confirmation(theirs, None, role="baseline"))


def test_no_fewer_questions_are_named_than_there_were_nor_than_the_test_needs() -> None:
    assert paired.estimate_sample_size(np.array([1.0, 1.1])) == paired.FEWEST
    assert verdict._format_needed(6, 2) == "; about 6 would be needed"
    assert verdict._format_needed(40, 54) == ""


def test_a_cost_that_would_be_told_as_the_same_gives_up_nothing() -> None:
    noise = np.random.default_rng(6).normal(0, 0.1, (3, 40))
    # In this order, and all within a standard error of each other.
    best, level, cheap = noise - noise.mean(axis=1, keepdims=True) + np.array([[0.002], [0.001], [0.0]])
    order = [Candidate(1, best, 1000.0), Candidate(2, level, 996.0), Candidate(3, cheap, 990.0)]
    assert select_finalists(order[:2], 1.0, 3).recommended == 1
    assert select_finalists(order, 1.0, 3).recommended == 3


def test_of_the_tied_the_cheapest_is_selected() -> None:
    best = np.array([0.5, 0.7, 0.9, 0.7])
    level = best - np.array([0.1, -0.1, 0.1, 0.1])
    candidates = [
        Candidate(1, best, 2000.0),
        Candidate(2, level, 700.0),
        Candidate(3, np.add(level[::-1], [0.3, 0.0, 0.0, -0.3]), 900.0),
        Candidate(4, best - 0.2, 10.0),
    ]
    selection = select_finalists(candidates, 1.0, 3)
    assert (selection.best, selection.recommended, selection.tied, selection.all_tied) == (1, 2, (3,), 2)
    arms = [
        MeasuredConfiguration("best", 1, (), 0.7, 2000.0, best),
        MeasuredConfiguration("tied", 2, (), 0.65, 700.0, level),
    ]
    why = explain_choice(build_confirmation("F1", 1.0, "tokens", selection, arms, 0))
    assert why == "trial 2: the cheapest of 3 tied within noise: tokens 700, against 2,000 of the best, trial 1"


def test_handing_on_less_makes_none_cheaper_that_hands_on_worse() -> None:
    """Equal rankings: by tokens alone the one that hands on three chunks would win over ten, and ten over sixteen."""
    ranks, handed = np.array([0.5, 0.7, 0.9, 0.7]), np.array([0.5, 0.7, 0.9, 0.6])
    sixteen = Candidate(1, ranks, 1600.0, handed)
    ten = Candidate(2, ranks, 1000.0, handed)
    three = Candidate(3, ranks, 300.0, handed - np.array([0.3, 0.2, 0.4, 0.3]))
    unknown = Candidate(4, ranks, 10.0)
    selection = select_finalists([sixteen, ten, three, unknown], 1.0, 3)
    assert (selection.recommended, selection.tied, selection.all_tied) == (2, (), 1)
    level = Candidate(5, ranks, 500.0, handed - np.array([0.1, -0.1, 0.1, 0.0]))
    assert select_finalists([sixteen, ten, three, level], 1.0, 3).recommended == 5


def test_where_the_best_could_not_be_confirmed_nothing_else_is_called_the_best() -> None:
    best = np.array([0.5, 0.7, 0.9, 0.7])
    level = best - np.array([0.1, -0.1, 0.1, 0.1])
    selection = select_finalists(
        [Candidate(7, best, 900.0), Candidate(3, level, 100.0), Candidate(0, best - 0.5, 500.0)], 1.0, 3
    )
    arms = [
        MeasuredConfiguration("tied", 3, (), 0.65, 100.0, level),
        MeasuredConfiguration("baseline", 0, (), 0.2, 500.0, best - 0.5),
    ]
    assert selection.recommended == 3
    assert explain_choice(build_confirmation("F1", 1.0, "tokens", selection, arms, 0)) == (
        "trial 3: the cheapest of 2 tied within noise: tokens 100"
    )


def test_unmeasured_questions_are_in_no_comparison() -> None:
    ours, theirs = np.array([0.5, np.nan, 0.7, 0.9]), np.array([0.4, 0.9, np.nan, 0.8])
    arm = confirmation(ours, theirs).selected_arm
    assert arm.difference == pytest.approx(0.1)
    assert sum(arm.outcome) == 2


def test_a_confirmation_survives_being_stored() -> None:
    found = confirmation(np.linspace(0, 1, 20), np.linspace(1, 0, 20))
    again = Confirmation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert format_evidence(again) == format_evidence(found)
    assert again.selected_arm == found.selected_arm
    assert math.isnan(again.arms[1].difference)


def test_the_recommended_is_tested_alone_and_first_the_others_by_holm_behind_it() -> None:
    assert _adjust_p_values({7: 0.03, 1: 0.01, 2: 0.02}, 7) == pytest.approx({7: 0.03, 1: 0.03, 2: 0.03})
    assert _adjust_p_values({7: 0.001, 1: 0.01, 2: 0.2}, 7) == pytest.approx({7: 0.001, 1: 0.02, 2: 0.2})
    # Where the first shows nothing, the others can't.
    assert _adjust_p_values({7: 0.6, 1: 0.001}, 7) == pytest.approx({7: 0.6, 1: 0.6})
    # The recommended one is the baseline itself: nothing is tested, and no look is spent.
    assert _adjust_p_values({1: 0.01, 2: 0.03}, 0) == {}


def test_questions_asked_again_are_counted_once_and_said() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.uniform(0, 0.8, 40)
    ours = theirs + 0.05 + generator.normal(0, 0.1, 40)
    selection = select_finalists([Candidate(3, ours, 900.0)], 1.0, 0)

    def found(times: int) -> Confirmation:
        arms = [
            MeasuredConfiguration("best", 3, (), 0.6, 900.0, np.repeat(ours, times)),
            MeasuredConfiguration("baseline", 0, (), 0.5, 800.0, np.repeat(theirs, times)),
        ]
        groups = np.repeat(np.arange(40, dtype=np.int32), times)
        return build_confirmation("F1", 1.0, "tokens", selection, arms, 0, groups=groups)

    once, thrice = found(1).selected_arm, found(3).selected_arm
    assert thrice.p == once.p
    assert (thrice.difference_low, thrice.difference_high) == pytest.approx((once.difference_low, once.difference_high))
    assert format_evidence(found(1)).endswith("on 40 questions the search never saw")
    assert format_evidence(found(3)).endswith("on 40 different questions the search never saw")
    together = replace(found(3), grouped=True)
    assert format_evidence(together).endswith("on 40 groups of questions the search never saw")


def test_of_several_objectives_all_comparisons_are_adjusted_for_one_another() -> None:
    """In 400 studies of two objectives in which nothing differs, at most 5 % claim anything anywhere."""
    false = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        selection = select_finalists([Candidate(1, generator.normal(0, 1, 40), 1.0)], 1.0, 0)
        found = []
        for metric in ("quality", "cost"):
            arms = [
                MeasuredConfiguration(role, trial, (), 0.0, 1.0, generator.normal(0, 1, 40))
                for trial, role in enumerate(("baseline", "best", "tied"))
            ]
            found.append(build_confirmation(metric, 1.0, "tokens", selection, arms, seed, 500))
        false += any(arm.adjusted <= 0.05 for each in adjust_confirmations(found) for arm in each.arms)
    assert 5 <= false <= 30


def test_one_that_is_no_better_in_one_objective_may_be_so_in_another() -> None:
    same, less = np.linspace(0.2, 0.8, 40), np.linspace(900, 1000, 40)
    selection = select_finalists([Candidate(1, same, 1.0)], 1.0, 0)
    quality, cost = (
        build_confirmation(
            metric,
            sign,
            "tokens",
            selection,
            [
                MeasuredConfiguration("best", 1, (), 0.0, 1.0, ours),
                MeasuredConfiguration("baseline", 0, (), 0.0, 1.0, theirs),
            ],
            0,
        )
        for metric, sign, ours, theirs in (("nDCG@10", 1.0, same, same), ("tokens", -1.0, less, less + 400))
    )
    quality, cost = adjust_confirmations([quality, cost])
    assert format_evidence(quality).startswith("nDCG@10: no difference from the baseline on 40")
    assert (
        format_evidence(cost)
        == "tokens: better than the baseline by -400.0 [-400.0, -400.0] on 40 questions the search never saw"
    )
    assert adjust_confirmations([quality]) == (quality,)


def test_what_is_measured_once_for_all_questions_has_no_interval() -> None:
    selection = select_finalists([Candidate(1, np.full(40, 0.5), 1.0)], 1.0, 0)
    arms = [
        MeasuredConfiguration("best", 1, (), 0.0, 1.0, np.full(40, 0.2)),
        MeasuredConfiguration("baseline", 0, (), 0.0, 1.0, np.full(40, 0.3)),
    ]
    found = build_confirmation("latency", -1.0, "tokens", selection, arms, 0, once=True)
    assert math.isnan(found.selected_arm.adjusted)
    assert not found.shown
    assert (
        format_evidence(found)
        == "latency: -0.1000 against the baseline (one measurement for all questions: no interval)"
    )


@pytest.mark.parametrize(("others", "alike"), [((0.0, 0.0), 3), ((0.0, 0.1), 0), ((), 0)])
def test_an_objective_that_tells_nothing_apart_recommends_nothing(others: tuple[float, ...], alike: int) -> None:
    scores = np.array([0.2, 0.9, np.nan, 0.4])
    rows = [scores, *(scores + each for each in others)]
    candidates = [Candidate(number, row, 100.0 - number) for number, row in enumerate(rows)]
    selection = select_finalists(candidates, 1.0, ties=2)
    assert selection.alike == alike
    measured = [
        MeasuredConfiguration("baseline", 0, (), 0.5, 100.0, scores),
        MeasuredConfiguration("tied", 2, (), 0.5, 98.0, scores),
    ]
    found = build_confirmation("nDCG@10", 1.0, "tokens", selection, measured[: len(rows)], 0, 10)
    if alike:
        assert "all 3 configurations have the very same nDCG@10 for every question; trial 2" in explain_alike(found)
