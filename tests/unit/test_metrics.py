"""Metrics against second implementations and hand-worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.errors import MetricError
from rag_opt.evaluation.coverage import compute_coverage
from rag_opt.metrics import answer, catalogue, context, own, retrieval

ids = st.sampled_from([f"d{i}" for i in range(8)])
rankings = st.lists(ids, max_size=8, unique=True)
grades = st.dictionaries(ids, st.integers(0, 3), min_size=1, max_size=8)
sentences = st.lists(st.sampled_from("the cat sat on a mat dog ran".split()), max_size=9).map(" ".join)


def by_hand(name: str, grade: dict[str, int], ranking: list[str], k: int = 10) -> float:
    """nDCG with linear gain (Järvelin and Kekäläinen 2002), reciprocal rank, recall, precision, average precision."""
    top = ranking[:k]
    relevant = [doc for doc, value in grade.items() if value > 0]
    hits = [doc in relevant for doc in top]
    if name == "nDCG":
        ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grade.values(), reverse=True)[:k]))
        return sum(grade.get(doc, 0) / math.log2(i + 2) for i, doc in enumerate(top)) / ideal
    if name == "RR":
        return next((1 / (i + 1) for i, hit in enumerate(hits) if hit), 0.0)
    if name == "R":
        return sum(hits) / len(relevant)
    if name == "P":
        return sum(hits) / k
    return sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / len(relevant)


@given(grades, rankings, st.sampled_from(["nDCG", "RR", "R", "P", "AP"]), st.integers(1, 10))
def test_retrieval_measures_agree_with_their_definitions(grade, ranking, name: str, k: int) -> None:
    value = retrieval.score_rankings([f"{name}@{k}"], {"q": grade}, ["q"], [ranking])[f"{name}@{k}"][0]
    if not any(grade.values()):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(by_hand(name, grade, ranking, k), abs=1e-6)


def test_metrics_measured_together_are_those_measured_alone() -> None:
    qrels, rankings = {"a": {"x": 2, "y": 1}, "b": {"y": 1}, "c": {"x": 0}}, [["y", "z", "x"], [], ["x"]]
    names = [*retrieval.MEASURES, "P(rel=2)@2", "R@1", "RR"]
    together = retrieval.score_rankings(names, qrels, list("abc"), rankings)
    for name in names:
        alone = retrieval.score_rankings([name], qrels, list("abc"), rankings)[name]
        np.testing.assert_array_equal(together[name], alone)


def test_a_query_with_nothing_retrieved_scores_the_default_and_is_not_dropped() -> None:
    values = retrieval.score_rankings(["nDCG@10"], {"a": {"x": 1}, "b": {"y": 1}}, ["a", "b"], [["x"], []])
    assert values["nDCG@10"].tolist() == [1.0, 0.0]


@given(sentences, sentences)
def test_token_f1_agrees_with_squads_definition(given_text: str, reference: str) -> None:
    from collections import Counter

    mine, gold = answer.normalize_answer(given_text), answer.normalize_answer(reference)
    same = sum((Counter(mine) & Counter(gold)).values())
    if not mine or not gold:
        expected = float(mine == gold)
    elif same == 0:
        expected = 0.0
    else:
        precision, recall = same / len(mine), same / len(gold)
        expected = 2 * precision * recall / (precision + recall)
    assert answer.token_f1(given_text, reference) == pytest.approx(expected)


def test_squad_normalisation() -> None:
    assert answer.normalize_answer("The Eiffel-Tower, a landmark!") == ["eiffeltower", "landmark"]
    assert answer.exact_match("the Denver Broncos.", "Denver Broncos") == 1.0


@given(sentences, sentences)
def test_rouge_1_without_stemming_effects_is_unigram_f1(given_text: str, reference: str) -> None:
    from collections import Counter

    mine, gold = given_text.split(), reference.split()
    same = sum((Counter(mine) & Counter(gold)).values())
    expected = 2 * same / (len(mine) + len(gold)) if same else 0.0
    assert answer.rouge_1(given_text, reference) == pytest.approx(expected)


def test_rouge_l_by_hand() -> None:
    # longest common subsequence "the cat on mat": 4 of 5 and 4 of 6 words
    assert answer.rouge_l("the cat lay on mat", "the cat sat on the mat") == pytest.approx(2 * 4 / (5 + 6))


@given(sentences.filter(lambda text: len(text.split()) >= 4), sentences.filter(bool))
def test_bleu_agrees_with_sacrebleu(given_text: str, reference: str) -> None:
    import sacrebleu

    theirs = sacrebleu.sentence_bleu(given_text, [reference], smooth_method="exp", tokenize="none").score / 100
    assert answer.bleu(given_text, reference) == pytest.approx(theirs, abs=1e-9)


def test_the_best_reference_counts_and_none_is_not_measurable() -> None:
    values = answer.score_answers(answer.token_f1, ["cat", "cat", ""], [("dog", "cat"), (), ("dog",)])
    assert values[0] == 1.0
    assert math.isnan(values[1])
    assert values[2] == 0.0


def test_similarity_is_the_greatest_cosine() -> None:
    table = {"a": [1, 0], "b": [0, 1], "c": [0.6, 0.8], "": [1, 0]}
    encode = lambda texts: np.array([table[text] for text in texts], np.float32)  # noqa: E731
    values = answer.similarity(encode, ["a", "a", "", "a"], [("b", "c"), ("a",), ("a",), ()])
    assert values[:3].tolist() == pytest.approx([0.6, 1.0, 0.0])
    assert math.isnan(values[3])


@pytest.mark.parametrize(
    ("name", "advice"), [("nDGC@10", "nDCG@10"), ("f1", "F1"), ("rouge-l", "ROUGE-L"), ("latancy", "latency")]
)
def test_an_unknown_metric_names_the_nearest(name: str, advice: str) -> None:
    with pytest.raises(MetricError, match=f"did you mean '{advice}'"):
        catalogue.get_metric(name)


@pytest.mark.parametrize("name", ["ERR@20", "alpha_nDCG@20", "INST", "Judged", "nDCG@0"])
def test_a_measure_that_can_not_be_computed_here_is_refused_at_once(name: str) -> None:
    try:
        found = catalogue.get_metric(name)
    except MetricError:
        return
    assert len(retrieval.score_rankings([found.name], {"q": {"d": 1}}, ["q"], [["d"]])[found.name]) == 1


def test_costs_are_minimised() -> None:
    assert catalogue.get_metric("tokens").direction == catalogue.get_metric("latency").direction == "minimize"
    assert catalogue.get_metric("P(rel=2)@5").direction == "maximize"


@given(sentences.filter(bool), sentences.filter(bool))
def test_chrf_is_f2_of_mean_precision_and_recall(given_text: str, reference: str) -> None:
    """Popović 2015: precision and recall of character n-grams averaged over n = 1 to 6, then F with recall twice."""
    from collections import Counter

    def grams(text: str, n: int) -> Counter:
        letters = "".join(text.split())
        return Counter(letters[i : i + n] for i in range(len(letters) - n + 1))

    pairs = [(grams(given_text, n), grams(reference, n)) for n in range(1, 7)]
    pairs = [(mine, gold) for mine, gold in pairs if mine and gold]
    shared = [sum((mine & gold).values()) for mine, gold in pairs]
    precision = np.mean([n / sum(mine.values()) for n, (mine, _) in zip(shared, pairs, strict=True)])
    recall = np.mean([n / sum(gold.values()) for n, (_, gold) in zip(shared, pairs, strict=True)])
    expected = 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0
    assert answer.chrf(given_text, reference) == pytest.approx(expected)


def test_an_empty_answer_has_no_chrf() -> None:
    assert answer.chrf("", "cat") == answer.chrf("cat", " ") == 0.0
    assert answer.chrf("", "") == answer.chrf("cat", "cat") == 1.0


PLANE = {"a": [1, 0], "b": [0, 1], "c": [0.6, 0.8], "": [1, 0], "-a": [-1, 0]}


def on_plane(texts: list[str]) -> np.ndarray:
    return np.array([PLANE[text] for text in texts], np.float32)


def by_bars(texts: list[str]) -> list[list[str]]:
    return [[part for part in text.split("|") if part] for text in texts]


def test_coherence_is_the_mean_cosine_of_answer_and_chunks() -> None:
    values = context.coherence(on_plane, ["a", "a", "", "a", "a"], [["a", "b"], ["c"], ["a"], [], ["-a"]])
    assert values.tolist() == pytest.approx([0.5, 0.6, 0.0, 0.0, 0.0])


def test_diversity_is_1_less_the_mean_cosine_of_pairs() -> None:
    values = context.diversity(on_plane, [["a", "b"], ["a", "b", "c"], ["a", "a"], ["a"], []])
    assert values.tolist() == pytest.approx([1.0, 1 - (0 + 0.6 + 0.8) / 3, 0.0, 0.0, 0.0])


def test_faithfulness_takes_the_nearest_sentence_for_each_of_the_answers() -> None:
    values = context.faithfulness(on_plane, by_bars, ["a|b", "c", "", "a"], [["a|c"], ["a", "b"], ["a"], []])
    assert values.tolist() == pytest.approx([(1 + 0.8) / 2, 0.8, 0.0, 0.0])


def test_a_function_that_fails_leaves_a_question_unmeasured() -> None:
    def half(case: own.Case) -> float | None:
        return {"x": 0.5, "y": None, "z": 1 / 0 if case.question == "z" else 0.0}[case.question]

    cases = [own.Case(name, None, (), (), (), {}) for name in "xyz"]
    values = own.apply_function("half", half, cases)
    assert values[0] == 0.5
    assert np.isnan(values[1:]).all()


def test_coverage_is_over_what_the_dataset_can_measure() -> None:
    values = np.array([0.5, np.nan, np.nan, 0.0])
    assert compute_coverage(values, np.array([True, False, False, True])) == 1.0
    assert compute_coverage(values, np.array([True, True, False, True])) == pytest.approx(2 / 3)
    assert compute_coverage(values, np.zeros(4, bool)) == 1.0
