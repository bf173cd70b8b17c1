"""The splits that a data set brings: which questions are searched, and which confirm."""

from pathlib import Path

import pytest

from rag_opt.config.compose import compose_config
from rag_opt.datasets import beir, jsonl
from rag_opt.datasets.splits import choose_splits, compute_split_key, split_dataset
from rag_opt.errors import DatasetError
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.records.documents import Dataset
from rag_opt.records.keys import compute_key
from rag_opt.study.plan import build_plan
from tests.conftest import write_jsonl

TOPICS = ("apples", "bees", "cats", "dogs", "elms", "foxes", "geese", "hens", "ibises", "jays", "kelp", "larks")
SIZES = {"train": 6, "dev": 4, "test": 2}


def folder(place: Path, sizes: dict[str, int] = SIZES, **more: str) -> Path:
    """A BEIR folder whose qrels are these files; `more` are lines to add to them."""
    (place / "qrels").mkdir(parents=True)
    write_jsonl(place / "corpus.jsonl", [{"_id": topic, "text": f"All about {topic}."} for topic in TOPICS])
    write_jsonl(
        place / "queries.jsonl", [{"_id": f"q{n}", "text": f"What of {topic}?"} for n, topic in enumerate(TOPICS)]
    )
    rows = iter(enumerate(TOPICS))
    for name, count in sizes.items():
        lines = [f"q{number}\t{topic}\t1\n" for number, topic in (next(rows) for _ in range(count))]
        (place / "qrels" / f"{name}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(lines) + more.get(name, ""), "utf-8"
        )
    return place


def sides(dataset: Dataset) -> tuple[list[str], list[str]]:
    dev, test = split_dataset(dataset, 0.3, 0)
    return [query.id for query in dev.queries], [query.id for query in test.queries]


def load(place: Path, *words: str) -> Dataset:
    return load_dataset(compose_config(["dataset=beir", f"dataset.path={place}", *words]))


def test_dev_is_searched_and_test_confirms_where_a_data_set_brings_both(tmp_path) -> None:
    dataset = load(folder(tmp_path))
    assert sides(dataset) == (["q6", "q7", "q8", "q9"], ["q10", "q11"])
    assert dataset.notes[-2:] == (
        "its own splits are kept: 4 questions of dev are searched, 2 of test confirm (dataset.search=all: cut at random)",
        "questions left out: 6 of train",
    )


def test_train_is_searched_where_there_is_no_dev_and_any_two_where_they_are_named(tmp_path) -> None:
    place = folder(tmp_path / "a", {"train": 8, "test": 4})
    assert sides(load(place))[1] == ["q8", "q9", "q10", "q11"]
    place = folder(tmp_path / "b")
    assert sides(load(place, "dataset.search=train")) == ([f"q{n}" for n in range(6)], ["q10", "q11"])
    assert sides(load(place, "dataset.search=train", "dataset.confirm=dev"))[1] == ["q6", "q7", "q8", "q9"]


def test_all_questions_are_cut_at_random_where_that_is_asked_for_or_nothing_confirms(tmp_path) -> None:
    place = folder(tmp_path / "a")
    whole = load(place, "dataset.search=all")
    assert len(whole.queries) == 12
    assert not whole.confirming
    assert not load(folder(tmp_path / "b", {"train": 6, "dev": 6})).confirming
    # One file that was named is no split: its questions are cut.
    assert len(load(place, "dataset.qrels=qrels/dev.tsv").queries) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search=deev"], r"dataset.search=deev: .* has no such split; its splits are 'train', 'dev', 'test'"),
        (["confirm=held"], "dataset.confirm=held: .* has no such split"),
        (["search=test"], "what confirms must not be searched"),
        (["search=dev", "confirm=dev"], "what confirms must not be searched"),
        (["search=all", "confirm=test"], "all questions can't be searched and some of them confirm"),
        (["confirm=all"], "all questions can't be searched and some of them confirm"),
    ],
)
def test_splits_that_can_not_be_are_refused(tmp_path, words, message) -> None:
    with pytest.raises(DatasetError, match=message):
        load(folder(tmp_path), *(f"dataset.{word}" for word in words))


def test_a_split_named_where_there_is_none_or_no_other_is_refused(tmp_path) -> None:
    with pytest.raises(DatasetError, match="dataset.confirm: name a split, too; those of .* are 'train', 'dev'"):
        load(folder(tmp_path / "a", {"train": 6, "dev": 6}), "dataset.search=dev")
    write_jsonl(tmp_path / "d.jsonl", [{"id": "a", "text": "Apples grow."}])
    write_jsonl(tmp_path / "q.jsonl", [{"question": "What grows?", "relevant": ["a"]}])
    found = jsonl.load(str(tmp_path / "d.jsonl"), str(tmp_path / "q.jsonl"))
    with pytest.raises(DatasetError, match="its questions are of no split"):
        choose_splits(found, "dev")


def test_a_question_of_several_splits_confirms(tmp_path) -> None:
    # Neither the first nor the last of the files by name: dev, test, train.
    found = beir.load(str(folder(tmp_path, train="q10\tapples\t1\n", dev="q10\tbees\t1\n")))
    assert {query.id: query.split for query in found.queries}["q10"] == "test"


def test_what_repeats_a_confirming_question_is_not_searched(tmp_path) -> None:
    place = folder(tmp_path)
    rows = [{"_id": f"q{n}", "text": f"What of {topic}?"} for n, topic in enumerate(TOPICS)]
    rows[6]["text"] = "what OF kelp"
    write_jsonl(place / "queries.jsonl", rows)
    dataset = load(place)
    assert sides(dataset) == (["q7", "q8", "q9"], ["q10", "q11"])
    assert "1 questions of dev repeat, or belong with, one of test: left out of the search" in dataset.notes


def test_questions_of_a_file_of_ones_own_may_name_their_split(tmp_path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"id": topic, "text": f"All about {topic}."} for topic in TOPICS])
    names = ["dev"] * 5 + ["test"] * 6 + [None]
    write_jsonl(
        tmp_path / "q.jsonl",
        [{"question": f"What of {t}?", "relevant": [t], "split": n} for t, n in zip(TOPICS, names, strict=True)],
    )
    words = ["dataset=jsonl", f"dataset.documents={tmp_path / 'd.jsonl'}", f"dataset.questions={tmp_path / 'q.jsonl'}"]
    dataset = load_dataset(compose_config(words))
    assert [len(side) for side in sides(dataset)] == [5, 6]
    assert "1 questions of no split left out" in dataset.notes


def test_so_many_questions_are_kept_of_each_split(tmp_path) -> None:
    place = folder(tmp_path)
    assert sides(load(place, "dataset.num_queries=1")) == (["q6"], ["q10"])
    assert [len(side) for side in sides(load(place, "dataset.num_queries=2", "dataset.seed=3"))] == [2, 2]


def test_the_split_is_part_of_what_a_study_is_made_of(tmp_path) -> None:
    place = folder(tmp_path)
    one, other = load(place), load(place, "dataset.search=dev", "dataset.confirm=train")
    assert compute_split_key(one, 0.3, 0) == compute_split_key(one, 0.5, 1)
    assert compute_split_key(one, 0.3, 0) != compute_split_key(other, 0.3, 0)
    whole = load(place, "dataset.search=all")
    assert compute_split_key(whole, 0.3, 0) == compute_key(whole.fingerprint, 0.3, 0)


def test_a_study_searches_the_one_and_confirms_with_the_other(tmp_path) -> None:
    words = ["dataset=beir", f"dataset.path={folder(tmp_path / 'set')}", f"store.path={tmp_path / 'store'}"]
    plan = build_plan([*words, f"studies_dir={tmp_path / 'studies'}", "retriever=bm25", "embedder=hashing"])
    asked = [{query.id for query in side.questions.dataset.queries} for side in (plan.dev, plan.test)]
    assert asked == [{"q6", "q7", "q8", "q9"}, {"q10", "q11"}]
    assert plan.parts["dataset"]["dataset.search"] == "auto"
