"""Questions asked again and documents under two ids: found, said, kept on one side of a split."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.config.compose import compose_config
from rag_opt.datasets import duplicates
from rag_opt.datasets.duplicates import format_repeats, group_by_document, group_repeats
from rag_opt.datasets.splits import compute_split_key, split_dataset
from rag_opt.errors import ConfigError, DatasetError
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.records.documents import Dataset, Document, Query
from rag_opt.records.keys import compute_key
from tests.conftest import write_jsonl

DOCUMENTS = (Document("a", "Apples grow."), Document("b", "Bees fly."))


def of(*texts: str, gold: str = "a") -> Dataset:
    queries = tuple(Query(f"q{row}", text) for row, text in enumerate(texts))
    return Dataset("x", DOCUMENTS, queries, {query.id: {gold: 1} for query in queries})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who grows apples?", "who grows  APPLES", True),
        ("Ｗｈｏ grows apples?", "Who grows apples?", True),
        ("Wie heißt die Straße?", "wie heisst die strasse", True),
        ("Which town is known for its apples?", "Which town is known for its red apples?", True),
        ("Which town is known for its apples?", "Which town is famous for the apples?", False),
        ("Who grows apples?", "Who sells apples?", False),
        ("???", "!!!", False),
        ("???", "???", True),
        ("苹果在哪里？", "苹果在哪里", True),
    ],
)
def test_what_counts_as_one_question(one: str, other: str, same: bool) -> None:
    dataset = of(one, other)
    assert (group_repeats(dataset.queries, dataset.qrels).tolist() == [0, 0]) is same


def test_near_equal_questions_with_other_gold_are_two() -> None:
    texts = [f"Which town of the county is known for its {each}?" for each in ("apples", "tea", "silk")]
    dataset = of(*texts)
    assert group_repeats(dataset.queries, dataset.qrels).tolist() == [0, 0, 0]
    assert group_repeats(dataset.queries, {f"q{row}": {str(row): 1} for row in range(3)}).tolist() == [0, 1, 2]
    same_answer = tuple(Query(f"q{row}", text, ("Northford",)) for row, text in enumerate(texts))
    assert group_repeats(same_answer, {}).tolist() == [0, 0, 0]


WORDS = st.lists(st.sampled_from("a b c d e f g h".split()), min_size=1, max_size=8).map(" ".join)


@given(st.lists(WORDS, min_size=2, max_size=12))
def test_no_near_pair_is_missed(texts: list[str]) -> None:
    """The prefix filter gives what comparing all pairs gives."""
    dataset = of(*texts)
    found = group_repeats(dataset.queries, dataset.qrels).tolist()
    sets = [set(text.split()) for text in texts]
    leaders = list(range(len(texts)))
    for one, other in combinations(range(len(texts)), 2):
        if len(sets[one] & sets[other]) >= duplicates.NEAR * len(sets[one] | sets[other]):
            low, high = sorted((leaders[one], leaders[other]))
            leaders = [low if each == high else each for each in leaders]
    assert found == leaders


@given(st.integers(4, 12), st.integers(1, 4), st.floats(0.2, 0.8), st.integers(0, 5))
def test_copies_are_on_one_side(count: int, times: int, share: float, seed: int) -> None:
    dataset = of(*(f"question number {row}x?" for row in range(count) for _ in range(times)))
    dev, test = split_dataset(dataset, share, seed)
    texts = [{query.text for query in part.queries} for part in (dev, test)]
    assert not texts[0] & texts[1]
    assert abs(len(test.queries) - share * len(dataset.queries)) <= max(times, 1)


def test_copies_of_one_question_can_not_be_divided() -> None:
    with pytest.raises(DatasetError, match=r"6 queries \(1 different ones\) can't be divided"):
        split_dataset(of(*["Who?"] * 6), 0.3, 0)


def test_a_split_without_copies_is_known_by_what_it_was_known_by() -> None:
    dataset = of("Who grows apples?", "Where do bees fly?")
    assert compute_split_key(dataset, 0.3, 1) == compute_key(dataset.fingerprint, 0.3, 1)
    again = of("Who grows apples?", "Who grows apples?")
    assert compute_split_key(again, 0.3, 1) != compute_key(again.fingerprint, 0.3, 1)


def test_what_repeats_is_said() -> None:
    documents = (*DOCUMENTS, Document("c", "Apples  grow."))
    queries = (Query("q0", "Who?"), Query("q1", "who"), Query("q2", "Where do bees fly?"))
    dataset = Dataset("x", documents, queries, {"q0": {"a": 1}, "q1": {"a": 1, "c": 1}, "q2": {"b": 1}})
    questions, texts = format_repeats(dataset)
    assert questions.startswith(
        "3 questions are 2 different ones (equal words, or 80 % of them and the same gold; such as 'q0' and 'q1')"
    )
    assert texts == (
        "documents equal to another under its own id: 1, such as 'a' and 'c'; for 1 questions only some of the copies "
        "count as found"
    )
    assert format_repeats(of("Who grows apples?", "Where do bees fly?")) == []


def test_ten_thousand_templates_are_compared_in_seconds() -> None:
    """Questions of one template and one answer have nothing rare in common; no pair of them is looked at."""
    queries = [Query(f"q{row}", f"Is number {row} of the great list in use?", ("yes",)) for row in range(10_000)]
    assert len(set(group_repeats(queries, {}).tolist())) == 10_000


# ---- questions that are told to belong together


def graded(*grades: dict[str, int]) -> Dataset:
    queries = tuple(Query(f"q{row}", f"question number {row}") for row in range(len(grades)))
    return Dataset("x", DOCUMENTS, queries, {f"q{row}": each for row, each in enumerate(grades)})


def test_questions_of_one_document_are_one_group_by_their_greatest_grade() -> None:
    found = group_by_document(graded({"a": 1}, {"b": 2, "a": 1}, {"a": 2, "b": 1}, {}, {"b": 0}))
    assert [query.group for query in found.queries] == ["document a", "document b", "document a", "", ""]
    assert group_repeats(found.queries, found.qrels).tolist() == [0, 1, 0, 3, 4]
    # They are no repeats, and so none are told.
    assert not any("different ones" in line for line in format_repeats(found))


def test_a_group_of_ones_own_stays_and_joins_what_repeats() -> None:
    queries = (
        Query("q0", "Who grows apples?", group="orchard"),
        Query("q1", "Where do bees sleep?", group="orchard"),
        Query("q2", "where do bees sleep"),
        Query("q3", "Who sells honey?"),
    )
    dataset = Dataset("x", DOCUMENTS, queries, {query.id: {"a": 1} for query in queries})
    assert group_repeats(dataset.queries, dataset.qrels).tolist() == [0, 0, 0, 3]
    assert [query.group for query in group_by_document(dataset).queries] == [
        "orchard",
        "orchard",
        "document a",
        "document a",
    ]


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=2, max_size=12), st.integers(0, 9))
def test_a_group_is_on_one_side_of_a_split(groups: list[str], seed: int) -> None:
    queries = tuple(Query(f"q{row}", f"number {row}", group=group) for row, group in enumerate(groups))
    dataset = Dataset("x", DOCUMENTS, queries, {query.id: {"a": 1} for query in queries})
    if len(set(group_repeats(queries, dataset.qrels).tolist())) < 2:
        return
    dev, test = split_dataset(dataset, 0.4, seed)
    sides = [{query.group for query in part.queries if query.group} for part in (dev, test)]
    assert not sides[0] & sides[1]
    assert len(dev.queries) + len(test.queries) == len(queries)


def test_the_key_names_the_groups(tmp_path) -> None:
    words = ["dataset=jsonl", f"dataset.documents={tmp_path}/d.jsonl", f"dataset.questions={tmp_path}/q.jsonl"]
    write_jsonl(tmp_path / "d.jsonl", [{"id": "a", "text": "Apples grow."}, {"id": "b", "text": "Bees fly."}])
    rows = [{"question": f"number {n}", "relevant": [gold]} for n, gold in enumerate("aabb")]
    write_jsonl(tmp_path / "q.jsonl", [*rows, {"question": "number 9", "relevant": ["a"], "group": "mine"}])
    plain = load_dataset(compose_config(words))
    assert [query.group for query in plain.queries] == ["", "", "", "", "mine"]
    grouped = load_dataset(compose_config([*words, "dataset.groups=document"]))
    assert [query.group for query in grouped.queries] == [*["document a"] * 2, *["document b"] * 2, "mine"]
    assert compute_split_key(plain, 0.3, 0) != compute_split_key(grouped, 0.3, 0)
    with pytest.raises(ConfigError, match=r"dataset\.groups=topic: document or null is expected"):
        load_dataset(compose_config([*words, "dataset.groups=topic"]))
