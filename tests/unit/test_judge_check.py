"""Judges that are known: agreement with known grades, leanings, and what their errors do to a confirmed difference."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rag_opt.analysis.confirmation import Arm, Confirmation
from rag_opt.analysis.judging import correct_difference, widen_intervals
from rag_opt.cache.store import Store
from rag_opt.cli.judge import _format_verdict
from rag_opt.components.llm.request import Request
from rag_opt.components.resources import Resources
from rag_opt.judge.agreement import compute_kappa, compute_kappa_interval
from rag_opt.judge.check import check_judge, explain_refusal, measure_agreement
from rag_opt.judge.labelled import EMPTY, LAST, LONG, RIGHT, WRONG, build_labelled
from rag_opt.metrics.aspects import BEST, FIELDS, WORST
from rag_opt.metrics.judges import Judges
from tests.unit.scripted import Scripted, in_json, prompt, text_of

GRADES = st.integers(1, 5)


def labelled_judge(script, repeats: int = 1) -> Judges:
    prompts = {aspect: prompt(f"judge_{aspect}") for aspect in FIELDS}
    return Judges(Scripted(script), "model", prompts, repeats).use_resources(Resources.from_store(Store()))


def read(request: Request, tag: str) -> str:
    return re.search(rf"<{tag}>\s*(.*?)\s*</{tag}>", text_of(request), re.DOTALL)[1]


def is_right(request: Request) -> bool:
    return read(request, "reference") in read(request, "answer")


# ---- agreement


@given(st.lists(st.tuples(GRADES, GRADES), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truths, grades = zip(*pairs, strict=True)
    found = compute_kappa(truths, grades, BEST)
    theirs = cohen_kappa_score(truths, grades, weights="quadratic", labels=range(1, BEST + 1))
    assert found == pytest.approx(theirs, nan_ok=True)


def test_the_ends_of_kappa() -> None:
    assert compute_kappa([1, 5, 1, 5], [1, 5, 1, 5], BEST) == 1.0
    assert compute_kappa([1, 5, 1, 5], [5, 1, 5, 1], BEST) == -1.0
    assert compute_kappa([1, 5, 1, 5], [3, 3, 3, 3], BEST) == 0.0
    assert math.isnan(compute_kappa([], [], BEST))
    assert math.isnan(compute_kappa([5, 5], [5, 5], BEST))


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 judges that err in one verdict of five, each measured on 40 questions of two answers."""
    generator = np.random.default_rng(1)
    truths = np.tile([1, 5], 40)
    groups = np.repeat(np.arange(40), 2)

    def draw(count: int) -> np.ndarray:
        return np.where(generator.random(count) < 0.2, generator.integers(1, 6, count), np.tile([1, 5], count // 2))

    true = compute_kappa(np.tile([1, 5], 100_000), draw(200_000), BEST)
    held = 0
    for seed in range(200):
        low, high = compute_kappa_interval(truths, draw(80), groups, BEST, seed)
        held += low <= true <= high
    assert 0.88 <= held / 200 <= 0.99


def test_one_question_has_no_interval() -> None:
    assert all(map(math.isnan, compute_kappa_interval([1, 5], [1, 5], [0, 0], BEST)))


# ---- labelled answers


@pytest.mark.parametrize("aspect", list(FIELDS))
@pytest.mark.parametrize("count", [0, 1, 10])
def test_labelled_cases_are_of_so_many_questions(aspect: str, count: int) -> None:
    cases = build_labelled(aspect, count)
    assert len({case.question for case in cases}) == count
    assert {case.truth for case in cases} <= {WORST, BEST, None}
    for case in cases:
        assert (case.shown.answer is None) == ("answer" not in FIELDS[aspect])
        if case.kind in (WRONG, WRONG + LONG) and case.shown.answer is not None:
            assert case.shown.references[0] not in case.shown.answer
        if case.kind == RIGHT + LAST:
            assert case.shown.documents[-1] not in case.shown.documents[:-1]


# ---- a judge measured


def test_a_judge_that_knows_agrees_entirely() -> None:
    found = check_judge(
        labelled_judge(lambda request: in_json(score=5 if is_right(request) else 1, reason="x")),
        "correctness",
        build_labelled("correctness", 8),
    )
    assert (found.asked, found.graded, found.kappa, found.low, found.high) == (40, 40, 1.0, 1.0, 1.0)
    assert (found.right, found.wrong, found.reach, found.error, found.length_bias) == (5.0, 1.0, 4.0, 0.0, 0.0)
    assert math.isnan(found.repeatability)
    assert found.format_line() == "judge.correctness by model: weighted kappa 1.00 [1.00, 1.00] on 40 labelled cases"


def test_a_judge_that_likes_long_answers_is_found_out() -> None:
    def script(request: Request) -> str:
        grade = 4 if is_right(request) else 1
        return in_json(score=min(5, grade + (len(read(request, "answer")) > 200)), reason="x")

    found = check_judge(labelled_judge(script), "correctness", build_labelled("correctness", 8))
    assert found.length_bias == pytest.approx(1.0)
    assert 0.8 < found.kappa < 1


def test_a_judge_that_reads_only_the_first_document_is_found_out() -> None:
    cases = build_labelled("faithfulness", 6)
    gold = {case.shown.question: case.shown.documents[0] for case in cases if case.kind == RIGHT}

    def script(request: Request) -> str:
        documents = read(request, "documents")
        place = documents.find(gold[read(request, "question")])
        return in_json(score=5 if 0 <= place < 60 else 1, reason="x")

    found = check_judge(labelled_judge(script), "faithfulness", cases)
    assert found.position_bias == pytest.approx(4.0)


def test_a_judge_that_says_another_grade_each_time_does_not_repeat_itself() -> None:
    grades = iter(range(10**6))
    judges = labelled_judge(lambda _: in_json(score=1 + next(grades) % 5, reason="x"), repeats=2)
    found = check_judge(judges, "correctness", build_labelled("correctness", 4))
    assert found.repeatability == 0.0
    assert abs(found.kappa) < 0.4


def test_what_can_not_be_read_is_counted() -> None:
    cases = build_labelled("correctness", 4)
    every = [[] if case.kind == EMPTY else [case.truth] for case in cases]
    found = measure_agreement("correctness", "model", cases, every)
    assert (found.graded, found.unreadable) == (16, pytest.approx(0.2))
    assert found.format_line().endswith("on 20 labelled cases, 20% unreadable")
    nothing = measure_agreement("correctness", "model", cases, [[] for _ in cases])
    assert math.isnan(nothing.kappa)
    assert "weighted kappa unknown on 20 labelled cases, 100% unreadable" in nothing.format_line()


@pytest.mark.parametrize(
    ("grade", "constant"),
    [
        (lambda truth, place: 1, True),
        (lambda truth, place: 5, True),
        (lambda truth, place: 1 + place % 2, False),
        # Nothing is known of what it would give a wrong answer.
        (lambda truth, place: 5 if truth == BEST else None, False),
    ],
)
def test_a_judge_is_constant_where_right_and_wrong_get_one_grade(grade, constant: bool) -> None:
    cases = build_labelled("correctness", 5)
    given = [grade(case.truth, place) for place, case in enumerate(cases)]
    found = measure_agreement("correctness", "model", cases, [[each] if each else [] for each in given])
    assert found.is_constant == constant
    assert ("to everything" in _format_verdict(found, 0.4)) == constant
    # Of a few it may be chance.
    few = measure_agreement("correctness", "model", cases[:5], [[each] if each else [] for each in given[:5]])
    assert not few.is_constant


def test_a_refusal_says_what_to_do() -> None:
    found = measure_agreement("correctness", "tiny", [], [])
    said = explain_refusal(replace(found, kappa=0.1, low=0.0, high=0.2, right=3.0, wrong=2.8, asked=50, graded=50), 0.4)
    assert said == (
        "judge.correctness by tiny: weighted kappa 0.10 [0.00, 0.20] on 50 labelled cases, below judge.floor=0.4: it "
        "gives 3.0 to right answers and 2.8 to wrong ones, so its grades can't decide; choose another judge.model, or "
        "judge.trust=true to have it decide all the same"
    )


# ---- what its errors do to a difference


def confirmed(difference: float, low: float, high: float) -> Confirmation:
    arm = Arm("best", 1, (), 3.0, 3.5, 3.0, 4.0, 1.0, 1.0, difference, low, high, p=0.01, adjusted=0.01)
    return Confirmation("judge.correctness", 1.0, "tokens", 100, 1, 0, (arm,), look=1)


def test_an_interval_grows_with_what_is_unknown_of_the_judge() -> None:
    found = confirmed(0.5, 0.2, 0.9)
    same = widen_intervals(found, 4.0, 0.0)
    assert same.arms[0].difference_low == pytest.approx(0.2)
    assert same.arms[0].difference_high == pytest.approx(0.9)
    wide, wider = (widen_intervals(found, 2.0, error).arms[0] for error in (0.2, 0.4))
    assert wider.difference_low < wide.difference_low < 0.2
    assert wider.difference_high > wide.difference_high > 0.9
    assert wide.difference == 0.5
    assert wide.p == 0.01
    assert widen_intervals(found, 2.0, 0.4, spared=[1]).arms == found.arms


@pytest.mark.parametrize("reach", [0.01, 0.0, -1.0])
def test_of_a_judge_that_grades_wrong_as_right_any_difference_may_be_true(reach: float) -> None:
    arm = widen_intervals(confirmed(0.5, 0.2, 0.9), reach, 0.2).arms[0]
    assert (arm.difference_low, arm.difference_high) == (-4.0, 4.0)


@pytest.mark.parametrize("known", [(math.nan, 0.1), (2.0, math.nan)])
def test_of_a_judge_that_nothing_was_measured_of_no_interval_changes(known: tuple[float, float]) -> None:
    found = confirmed(0.5, 0.2, 0.9)
    assert widen_intervals(found, *known) is found


def draw_differences(generator: np.random.Generator, count: int, graded: int) -> tuple[np.ndarray, np.ndarray]:
    """Judged differences and people's of some, true mean 0: the judge is too kind to the first, and noisy."""
    ours, theirs = generator.integers(1, 6, (2, count)).astype(float)
    scores = np.clip(ours + (ours < 3) + generator.normal(0, 0.7, count), 1, 5) - theirs
    truths = np.full(count, np.nan)
    chosen = generator.choice(count, graded, replace=False)
    truths[chosen] = (ours - theirs)[chosen]
    return scores, truths


@pytest.mark.parametrize("graded", [30, 60])
def test_peoples_grades_take_a_judges_bias_away(graded: int) -> None:
    """600 studies of 150 answers, in which no configuration is better: the interval holds 0, p is as rarely below 5 %."""
    generator = np.random.default_rng(graded)
    drawn = [draw_differences(generator, 150, graded) for _ in range(600)]
    found = [correct_difference(scores, truths, 0.95) for scores, truths in drawn]
    assert np.mean([scores.mean() for scores, _ in drawn]) > 0.3
    assert np.mean([each.difference for each in found]) == pytest.approx(0.0, abs=0.03)
    assert 0.93 <= np.mean([each.low <= 0 <= each.high for each in found]) <= 0.975
    assert 0.025 <= np.mean([each.p < 0.05 for each in found]) <= 0.07
    # Worth more than the people's grades alone.
    alone = np.mean([np.nanstd(truths, ddof=1) / math.sqrt(graded) for _, truths in drawn])
    assert np.mean([(each.high - each.low) / 4 for each in found]) < 0.8 * alone


def test_a_judge_that_grades_at_random_counts_for_nothing() -> None:
    generator = np.random.default_rng(3)
    truths = np.full(2000, np.nan)
    truths[:1000] = generator.integers(1, 6, 1000)
    found = correct_difference(generator.integers(1, 6, 2000).astype(float), truths, 0.95)
    assert found.difference == pytest.approx(np.nanmean(truths), abs=0.02)


def test_with_few_grades_of_people_nothing_is_corrected() -> None:
    generator = np.random.default_rng(3)
    assert correct_difference(*draw_differences(generator, 100, 29), 0.95) is None
    assert correct_difference(*draw_differences(generator, 100, 30), 0.95).graded == 30


def test_where_people_see_no_difference_there_is_none() -> None:
    found = correct_difference(np.zeros(40), np.zeros(40), 0.95)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
