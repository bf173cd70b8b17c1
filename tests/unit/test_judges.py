"""Language models as judges, and metrics of other libraries: what is no verdict is never taken for one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from haystack import component
from haystack.components.evaluators import AnswerExactMatchEvaluator

from rag_opt.cache.store import Store
from rag_opt.components.llm.chat import GIVE_UP_AFTER
from rag_opt.components.llm.request import Request
from rag_opt.components.llm.talks import ATTEMPTS
from rag_opt.components.resources import Resources
from rag_opt.errors import ComponentError
from rag_opt.metrics.adapters import parse_verdict, score_with_evaluator, score_with_scorer
from rag_opt.metrics.aspects import FIELDS, Shown
from rag_opt.metrics.judges import SAME, Judges, parse_judge_grade
from rag_opt.metrics.metering import Meter
from rag_opt.metrics.own import Case
from tests.unit.hostile import HOSTILE
from tests.unit.scripted import FAILS, Scripted, in_json, prompt, saying, spent, text_of

PROMPTS = {aspect: prompt(f"judge_{aspect}") for aspect in FIELDS}
EVERY = list(FIELDS)


def judges(chat: Scripted, store: Store, repeats: int = 1) -> Judges:
    return Judges(chat, "model", PROMPTS, repeats).use_resources(Resources.from_store(store))


def shown(**values: object) -> Shown:
    return Shown(
        **{"question": "Who?", "references": ("Ada",), "answer": "Bob", "documents": ("One.", "Two.")} | values
    )


def verdict(score: object, reason: str = "because") -> str:
    return in_json(score=score, reason=reason)


def same(found: np.ndarray, expected: Sequence[float]) -> bool:
    return found.dtype == np.float64 and np.allclose(found, expected, equal_nan=True)


# ---- grades


@pytest.mark.parametrize("score", [1, 2, 3, 4, 5])
def test_grades_are_whole_numbers_from_1_to_5(score: int) -> None:
    for written in (score, float(score), str(score), f" {score}.0 "):
        assert parse_judge_grade({"score": written, "reason": "x"}) == score


@pytest.mark.parametrize(
    "score",
    [
        True,
        False,
        3.5,
        "3.5",
        "five",
        "4/5",
        "²",
        0,
        6,
        -1,
        10**30,
        math.nan,
        math.inf,
        None,
        [5],
        {"score": 5},
        [],
        "",
        5j,
    ],
)
def test_what_is_no_grade_is_none(score: object) -> None:
    assert parse_judge_grade({"score": score, "reason": "x"}) is None


@pytest.mark.parametrize(
    "said", [None, 5, "5", [5], [{"score": 5}], {}, {"Score": 5}, {"grade": 5}, {"a": {"score": 5}}]
)
def test_what_has_no_grade_is_none(said: object) -> None:
    assert parse_judge_grade(said) is None


# ---- what a judge is shown


@pytest.mark.parametrize(
    ("aspect", "there", "lacking"),
    [
        ("correctness", ["Who?", "Ada", "Bob"], ["One."]),
        ("faithfulness", ["Who?", "[1] One.", "[2] Two.", "Bob"], ["Ada"]),
        ("context_relevance", ["Who?", "[1] One.", "[2] Two."], ["Ada", "Bob"]),
        ("answer_relevance", ["Who?", "Bob"], ["Ada", "One."]),
    ],
)
def test_a_judge_is_shown_what_it_needs_and_no_more(
    store: Store, aspect: str, there: list[str], lacking: list[str]
) -> None:
    chat = saying(verdict(4))
    found = judges(chat, store).grade_aspect(aspect, [shown()])
    assert same(found.grades, [4])
    assert found.usage.stage == f"judge {aspect}"
    assert all(text in text_of(chat.requests[0]) for text in there)
    assert not any(text in text_of(chat.requests[0]) for text in lacking)


def test_of_several_references_any_may_be_matched(store: Store) -> None:
    chat = saying(verdict(5))
    judges(chat, store).grade_aspect("correctness", [shown(references=("Ada", "Countess Lovelace", "A. L."))])
    assert "<reference>Ada / or: Countess Lovelace / or: A. L.</reference>" in text_of(chat.requests[0])


@pytest.mark.parametrize(
    ("aspect", "lacking"),
    [
        ("correctness", {"answer": None}),
        ("correctness", {"references": ()}),
        ("faithfulness", {"answer": None}),
        ("answer_relevance", {"answer": None}),
    ],
)
def test_without_what_is_judged_there_is_no_call_and_no_grade(store: Store, aspect: str, lacking: dict) -> None:
    chat = saying()
    found = judges(chat, store, 2).grade_aspect(aspect, [shown(**lacking)])
    assert same(found.grades, [math.nan])
    assert same(found.spread, [math.nan])
    assert spent(found.usage) == ([0], [0], [0], [0])


@pytest.mark.parametrize("lacking", [{"answer": None}, {"references": ()}, {"documents": ()}])
def test_contexts_are_judged_without_an_answer_or_reference(store: Store, lacking: dict) -> None:
    assert same(judges(saying(verdict(2)), store).grade_aspect("context_relevance", [shown(**lacking)]).grades, [2])


def test_an_empty_answer_is_judged(store: Store) -> None:
    assert same(judges(saying(verdict(1)), store).grade_aspect("correctness", [shown(answer="")]).grades, [1])


def test_a_prompt_that_shows_a_judge_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\{reference\}"):
        Judges(saying(), "model", {"correctness": {"user": "{question} {answer}"}}, 1)


# ---- verdicts


def test_repeats_give_mean_and_spread(store: Store) -> None:
    """2, 4, 5: mean 11/3, squared deviations 25/9 + 1/9 + 16/9 = 14/3, over 2: 7/3. 3, 3, 3: no spread."""
    by_question = {"first": [2, 4, 5], "second": [3, 3, 3]}

    def script(request: Request) -> str:
        (question,) = re.findall("<question>(.*)</question>", text_of(request))
        return verdict(by_question[question][request.attempt // 100])

    chat = Scripted(script, at_once=2)
    found = judges(chat, store, 3).grade_aspect("correctness", [shown(question="first"), shown(question="second")])
    assert same(found.grades, [11 / 3, 3])
    assert same(found.spread, [math.sqrt(7 / 3), 0])
    assert spent(found.usage) == ([3, 3], [30, 30], [15, 15], [0, 0])


def test_one_verdict_has_no_spread(store: Store) -> None:
    assert same(judges(saying(verdict(3)), store).grade_aspect("correctness", [shown()]).spread, [math.nan])


def test_each_repeat_and_each_attempt_is_a_request_of_its_own(store: Store) -> None:
    chat = saying("no", verdict(6), verdict(2), "no", verdict(4))
    found = judges(chat, store, 2).grade_aspect("correctness", [shown()])
    assert same(found.grades, [3])
    assert same(found.spread, [math.sqrt(2)])
    assert spent(found.usage) == ([5], [50], [25], [3])
    assert len({request.attempt for request in chat.requests}) == 5


@pytest.mark.parametrize("said", ["no", verdict("5/5"), verdict(4.5), verdict(True), verdict(0), "5", FAILS])
def test_a_verdict_that_cannot_be_had_leaves_the_question_unmeasured(store: Store, said: object) -> None:
    chat = Scripted(lambda request: said if "<question>bad" in text_of(request) else verdict(4))
    found = judges(chat, store, 2).grade_aspect("correctness", [shown(question="bad"), shown(question="good")])
    assert same(found.grades, [math.nan, 4])
    assert found.usage.broken.tolist() == [1 if said is FAILS else ATTEMPTS, 0]


def test_where_one_repeat_is_lacking_there_is_no_grade(store: Store) -> None:
    found = judges(saying(verdict(4), FAILS), store, 2).grade_aspect("correctness", [shown()])
    assert same(found.grades, [math.nan])
    assert same(found.spread, [math.nan])


def test_verdicts_are_found_in_the_store(tmp_path: Path) -> None:
    chat = Scripted(lambda request: verdict(1 + len(text_of(request)) % 5))
    given = [shown(), shown(answer="Ada"), shown(answer=None)]
    first = judges(chat, Store(tmp_path), 2).grade_aspect("correctness", given)
    assert len(chat.requests) == 4
    silent = saying()
    again = judges(silent, Store(tmp_path), 2).grade_aspect("correctness", given)
    assert silent.requests == []
    assert same(again.grades, first.grades)
    assert spent(again.usage) == spent(first.usage) == ([2, 2, 0], [20, 20, 0], [10, 10, 0], [0, 0, 0])


def test_the_same_question_twice_is_judged_once(store: Store) -> None:
    chat = saying(verdict(4))
    assert same(judges(chat, store).grade_aspect("correctness", [shown(), shown()]).grades, [4, 4])


def test_no_question_is_no_verdict(store: Store) -> None:
    assert same(judges(saying(), store).grade_aspect("correctness", []).grades, [])


def test_a_judge_that_cannot_be_reached_is_given_up(store: Store) -> None:
    chat = Scripted(lambda _: FAILS)
    with pytest.raises(ComponentError, match="judge correctness"):
        judges(chat, store).grade_aspect("correctness", [shown(question=str(number)) for number in range(9)])
    assert len(chat.requests) == GIVE_UP_AFTER


def test_judges_on_a_store_remember_no_failures_of_an_earlier_one(store: Store) -> None:
    broken = [True]
    base = Judges(Scripted(lambda _: FAILS if broken[0] else verdict(3)), "model", PROMPTS, 1)
    with pytest.raises(ComponentError):
        base.use_resources(Resources.from_store(store)).grade_aspect(
            "correctness", [shown(question=str(number)) for number in range(9)]
        )
    broken[0] = False
    assert same(base.use_resources(Resources.from_store(store)).grade_aspect("correctness", [shown()]).grades, [3])


def test_judges_that_were_put_on_a_store_themselves_forget_too(store: Store, tmp_path: Path) -> None:
    broken = [True]
    first = judges(Scripted(lambda _: FAILS if broken[0] else verdict(3)), store)
    with pytest.raises(ComponentError):
        first.grade_aspect("correctness", [shown(question=str(number)) for number in range(9)])
    broken[0] = False
    assert same(
        first.use_resources(Resources.from_store(Store(tmp_path / "other")))
        .grade_aspect("correctness", [shown()])
        .grades,
        [3],
    )


def test_a_grade_depends_on_model_prompt_and_repeats() -> None:
    def version(aspect: str = "correctness", **change: object) -> str:
        return Judges(**{"chat": saying(), "model": "m", "prompts": PROMPTS, "repeats": 1} | change).compute_version(
            aspect
        )

    other = {**PROMPTS, "correctness": {"user": "{question} {reference} {answer}!"}}
    changed = [version(model="n"), version(repeats=2), version(prompts=other), version("faithfulness")]
    assert version() == version()
    assert len({version(), *changed}) == 5
    assert version("faithfulness") == version("faithfulness", prompts=other)


# ---- judges that measure nothing


def by_rule(grade: Callable[[str], int]) -> Scripted:
    """A judge that grades by what it is shown."""
    return Scripted(lambda request: verdict(grade(text_of(request))))


@pytest.mark.parametrize("aspect", EVERY)
def test_a_judge_that_gives_one_grade_to_everything_measures_nothing(store: Store, said, aspect: str) -> None:
    chat = by_rule(lambda _: 1)
    mine = judges(chat, store)
    given, earlier = [shown(question=str(number)) for number in range(SAME // 2)], []
    first = mine.mask_constant(aspect, mine.grade_aspect(aspect, given), earlier)
    assert same(first.grades, [1] * (SAME // 2))
    for _ in range(2):
        found = mine.mask_constant(aspect, mine.grade_aspect(aspect, given), earlier)
        assert same(found.grades, [math.nan] * (SAME // 2))
    (line,) = said()
    assert line.startswith(
        f"judge {aspect}: model gives 1 to whatever it is shown, also 1 to a right and 1 to a wrong one"
    )
    assert "measure nothing" in mine.chat.llm.troubles[f"judge {aspect}"]
    assert len(chat.requests) == SAME // 2 + 2


@pytest.mark.parametrize("aspect", EVERY)
def test_answers_that_are_all_right_keep_their_grade(store: Store, said, aspect: str) -> None:
    mine = judges(by_rule(lambda text: 1 if "Bananas" in text else 5), store)
    given = [shown(question=str(number)) for number in range(SAME)]
    assert same(mine.mask_constant(aspect, mine.grade_aspect(aspect, given), []).grades, [5] * SAME)
    assert said() == []


def test_a_judge_whose_grades_vary_is_not_put_to_the_test(store: Store) -> None:
    chat = by_rule(lambda text: 1 + ("7" in text))
    mine = judges(chat, store)
    given = [shown(question=str(number)) for number in range(2 * SAME)]
    found = mine.mask_constant("correctness", mine.grade_aspect("correctness", given), [])
    assert same(found.grades, [1 + ("7" in str(number)) for number in range(2 * SAME)])
    assert len(chat.requests) == 2 * SAME


def test_a_judge_whose_test_brings_no_verdict_keeps_its_grades(store: Store) -> None:
    chat = Scripted(lambda request: "no" if "France" in text_of(request) else verdict(2))
    mine = judges(chat, store)
    given = [shown(question=str(number)) for number in range(SAME)]
    assert same(mine.mask_constant("correctness", mine.grade_aspect("correctness", given), []).grades, [2] * SAME)


# ---- hostile texts


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize("aspect", EVERY)
def test_no_text_changes_what_the_judge_said(aspect: str, number: int, store: Store) -> None:
    text = HOSTILE[number]
    chat = saying(verdict(2, f"It says: {text[:200]}"))
    found = judges(chat, store).grade_aspect(aspect, [Shown(text, (text,), text, [text, "fine"])])
    assert same(found.grades, [2])
    (asked,) = chat.requests
    assert text_of(asked).lower().count("</documents>") == PROMPTS[aspect]["user"].count("</documents>")
    assert text_of(asked).lower().count("<question>") == 1
    assert text_of(asked).rstrip().endswith('"score": <a number from 1 to 5>}')
    assert asked.messages[0] == ("system", PROMPTS[aspect]["system"].strip())


# ---- other libraries' metrics


def meter(name: str = "mine", **values: object) -> Meter:
    """What counts the calls of a metric; nobody keeps account."""
    return Meter(name, replace(Resources.from_store(Store()).llm, **values), None)


def evaluated(evaluator: object, cases: Sequence[Case]) -> np.ndarray:
    return score_with_evaluator(evaluator, cases, meter())


def scored_by(scorer: object) -> Callable[[Case], float]:
    return lambda one: float(score_with_scorer(scorer, [one], meter())[0])


def case(answer: str | None = "Ada", references: tuple[str, ...] = ("Ada",), **values: object) -> Case:
    return Case(
        **{
            "question": "Who?",
            "answer": answer,
            "references": references,
            "contexts": ("One.", "Two."),
            "documents": ("d1", "d2"),
            "relevant": {"d1": 1},
        }
        | values
    )


def test_haystacks_exact_match() -> None:
    cases = [case(), case("Bob"), case("Bob", ("Ada", "Bob")), case("ada")]
    assert same(evaluated(AnswerExactMatchEvaluator(), cases), [1, 0, 0, 0])
    assert same(evaluated(AnswerExactMatchEvaluator(), []), [])


def test_an_answer_that_failed_is_unmeasured_by_an_evaluator_of_answers() -> None:
    cases = [case(None), case(), case(None, ())]
    assert same(evaluated(AnswerExactMatchEvaluator(), cases), [math.nan, 1, math.nan])


@component
class Scripts:
    """An evaluator that gives back what it was told to."""

    def __init__(self, give: Callable[..., dict]) -> None:
        self.give = give

    @component.output_types(individual_scores=list[float], score=float)
    def run(self, questions: list[str], contexts: list[list[str]]) -> dict:
        return self.give(questions, contexts)


def test_an_evaluator_is_given_questions_and_contexts() -> None:
    seen = []

    def give(*given: object) -> dict:
        seen.append(given)
        return {"individual_scores": ["yes", None], "score": 1.0}

    found = evaluated(Scripts(give), [case(), case(question="Where?", contexts=())])
    assert same(found, [1, math.nan])
    assert seen == [(["Who?", "Where?"], [["One.", "Two."], []])]


def failing(*_: object) -> dict:
    raise RuntimeError("no quota left")


def test_an_evaluator_that_fails_leaves_all_unmeasured_and_that_is_said(said) -> None:
    assert same(evaluated(Scripts(failing), [case(), case()]), [math.nan, math.nan])
    assert said() == ["mine: 2 questions unmeasured: RuntimeError: no quota left"]


def test_an_evaluator_without_individual_scores_leaves_all_unmeasured() -> None:
    assert same(evaluated(Scripts(lambda *_: {"score": 1.0}), [case(), case()]), [math.nan, math.nan])


@pytest.mark.parametrize("count", [1, 3])
def test_an_evaluator_with_another_number_of_scores_measures_nothing(count: int) -> None:
    found = evaluated(Scripts(lambda *_: {"individual_scores": [1.0] * count}), [case(), case()])
    assert same(found, [math.nan, math.nan]) if len(found) == 2 else pytest.fail(f"{len(found)} values")


@component
class Wants:
    @component.output_types(individual_scores=list[float])
    def run(self, questions: list[str], ground_truth_documents: list[list[str]], extra: int = 0) -> dict:
        return {"individual_scores": [0.0] * len(questions)}


def test_an_evaluator_that_wants_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="mine: Wants wants ground_truth_documents; known are"):
        evaluated(Wants(), [case()])


def test_a_scorer_of_mlflow_is_given_the_case() -> None:
    from mlflow.genai.scorers import scorer

    @scorer
    def told(inputs, outputs, expectations) -> float:
        assert inputs == {"question": "Who?", "context": "One.\n\nTwo."}
        return float(outputs == expectations["expected_response"])

    value = scored_by(told)
    assert [value(case()), value(case("Bob")), value(case("Bob", ("Ada", "Bob")))] == [1.0, 0.0, 0.0]


def test_what_a_scorer_of_mlflow_may_give_back() -> None:
    from mlflow.entities import Feedback
    from mlflow.genai.judges import CategoricalRating
    from mlflow.genai.scorers import scorer

    @scorer
    def told(outputs) -> object:
        return {
            "feedback": Feedback(value=0.25),
            "nothing": Feedback(error=ValueError("x")),
            "rating": Feedback(value=CategoricalRating.NO),
            "true": True,
            "word": "pass",
            "other": "well",
        }[outputs]

    value = scored_by(told)
    assert [value(case(said)) for said in ("feedback", "rating", "true", "word")] == [0.25, 0.0, 1.0, 1.0]
    assert math.isnan(value(case("nothing")))
    assert math.isnan(value(case("other")))


def test_mlflows_response_length() -> None:
    from mlflow.genai.scorers import ResponseLength

    value = scored_by(ResponseLength(min_length=2, max_length=3, unit="words"))
    assert [value(case(text)) for text in ("one", "one two", "one two three", "one two three four")] == [0, 1, 1, 0]


def test_a_scorer_that_fails_leaves_its_questions_unmeasured(said) -> None:
    from mlflow.genai.scorers import scorer

    @scorer
    def moody(outputs) -> float:
        if outputs == "Bob":
            raise RuntimeError("no Bob")
        return 0.5

    found = score_with_scorer(moody, [case(), case("Bob"), case()], meter("moody"))
    assert same(found, [0.5, math.nan, 0.5])
    assert said() == ["moody: 1 of 3 questions unmeasured; the first: RuntimeError: no Bob"]


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (0.5, 0.5), (True, 1), (False, 0), (np.float32(0.25), 0.25), (" Yes ", 1), ("no", 0), ("FAIL", 0)],
)
def test_verdicts_as_numbers(value: object, number: float) -> None:
    assert parse_verdict(value) == number


@pytest.mark.parametrize("value", [None, "", "maybe", [1], {"score": 1}, object(), math.nan, "yes and no"])
def test_what_is_no_number_is_nan(value: object) -> None:
    assert math.isnan(parse_verdict(value))
