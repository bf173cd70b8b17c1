"""Loaders: every format gives the same record; every mistake in a file gets one message with its place."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.datasets import beir, jsonl, msmarco, squad
from rag_opt.datasets.checks import replace_surrogates, sample_ids
from rag_opt.datasets.splits import split_dataset
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset
from tests.conftest import DOCUMENTS, QUESTIONS, write_jsonl

CORPUS = [{"_id": str(i), "text": f"text {i}", "title": ""} for i in range(1, 5)]
QUERIES = [{"_id": "q1", "text": "one?", "answers": ["1"]}, {"_id": "q2", "text": "two?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\t1\t1\nq2\t2\t2\n"
RECORD = {
    "query": "what is a cat",
    "query_id": 7,
    "answers": ["an animal"],
    "passages": {"is_selected": [0, 1], "passage_text": ["Dogs  bark.", "Cats purr."]},
}
ARTICLE: dict[str, Any] = {
    "title": "A_cat",
    "paragraphs": [
        {
            "context": "Cats purr.",
            "qas": [{"id": "a", "question": "Who?", "answers": [{"text": "Cats", "answer_start": 0}]}],
        },
        {
            "context": "They eat fish.",
            "qas": [{"id": "b", "question": "What?", "answers": [{"text": "fish", "answer_start": 9}]}],
        },
    ],
}


def beir_folder(folder: Path, corpus=CORPUS, queries=QUERIES, qrels: str | None = QRELS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        if isinstance(rows, str):
            (folder / f"{name}.jsonl").write_text(rows, "utf-8")
        elif rows is not None:
            write_jsonl(folder / f"{name}.jsonl", rows)
    if qrels is not None:
        (folder / "qrels.tsv").write_text(qrels, "utf-8")
    return folder


def test_beir(tmp_path) -> None:
    dataset = beir.load(str(beir_folder(tmp_path / "set")))
    assert [d.id for d in dataset.documents] == ["1", "2", "3", "4"]
    assert dataset.queries[0].answers == ("1",)
    assert dataset.qrels == {"q1": {"1": 1}, "q2": {"2": 2}}
    assert dataset.name == "set"


def test_beir_with_a_folder_of_qrels(tmp_path) -> None:
    folder = beir_folder(tmp_path / "set", qrels=None)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\t2\t1\n")
    assert set(beir.load(str(folder)).qrels) == {"q1", "q2"}
    assert "q1" not in {q.id for q in beir.load(str(folder), qrels="qrels/test.tsv").queries if not q.answers}


def test_trec_qrels_of_four_columns_are_read(tmp_path) -> None:
    assert beir.load(str(beir_folder(tmp_path / "s", qrels="q1 0 1 1\nq2 0 2 2\n"))).qrels["q2"] == {"2": 2}


def test_int_ids_are_text(tmp_path) -> None:
    corpus = [{"_id": i, "text": f"text {i}"} for i in range(1, 5)]
    assert beir.load(str(beir_folder(tmp_path / "s", corpus=corpus))).qrels["q1"] == {"1": 1}


def test_jsonl(tmp_path) -> None:
    documents, questions = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS), write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    dataset = jsonl.load(str(documents), str(questions))
    assert dataset.qrels["q3"] == {"birds": 2, "trees": 1}
    assert dataset.queries[0].answers == ("Cats",)


def test_the_smallest_jsonl_that_works(tmp_path) -> None:
    documents = write_jsonl(tmp_path / "d.jsonl", [{"text": "Cats purr."}, {"text": "Dogs bark."}])
    questions = write_jsonl(
        tmp_path / "q.jsonl", [{"question": "Who purrs?", "relevant": 1}, {"question": "Who barks?", "answer": "Dogs"}]
    )
    dataset = jsonl.load(str(documents), str(questions))
    assert dataset.qrels == {"1": {"1": 1}, "2": {}}


def test_msmarco_keeps_relevant_passages_and_counts_the_unanswerable(tmp_path) -> None:
    rows = [
        {
            **RECORD,
            "query_id": i,
            "passages": {"is_selected": [0, int(i % 3 > 0)], "passage_text": [f"n {i}", f"y {i}"]},
        }
        for i in range(30)
    ]
    path = write_jsonl(tmp_path / "records.jsonl", rows)
    dataset = msmarco.load(str(path), num_documents=12, num_queries=8)
    assert len(dataset.queries) == 8
    assert len(dataset.documents) == 12
    assert all(
        document in {d.id for d in dataset.documents} for grades in dataset.qrels.values() for document in grades
    )
    assert dataset.notes == ("10 unanswerable queries left out",)
    assert msmarco.load(str(path), num_documents=12, num_queries=8) == dataset
    assert msmarco.load(str(path), num_documents=2, num_queries=8, seed=1).fingerprint != dataset.fingerprint
    assert len(msmarco.load(str(path), num_documents=2, num_queries=8).documents) == 8


def test_equal_msmarco_passages_are_one_document(tmp_path) -> None:
    twice = [RECORD, {**RECORD, "query_id": 8, "query": "cats?"}]
    dataset = msmarco.load(str(write_jsonl(tmp_path / "r.jsonl", twice)))
    assert [d.text for d in dataset.documents] == ["Dogs bark.", "Cats purr."]
    assert dataset.qrels == {"7": {"7_1": 1}, "8": {"7_1": 1}}


def test_msmarco_without_path_or_hub_names_both_ways_out(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DatasetError, match=r"(?s)dataset.path=.*rag-opt-studies\[hub\]"):
        msmarco.load()


def test_squad_evidence_is_in_the_whole_article(tmp_path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [ARTICLE]}))
    dataset = squad.load(str(path))
    (document,) = dataset.documents
    span = dataset.queries[1].evidence[0]
    assert document.text[span.start : span.end] == "fish"
    assert document.title == "A cat"


def test_two_squad_articles_of_one_title_are_refused_unless_equal(tmp_path) -> None:
    other = {**ARTICLE, "paragraphs": [{"context": "Other text.", "qas": []}]}
    (tmp_path / "s.json").write_text(json.dumps({"data": [ARTICLE, other]}))
    with pytest.raises(DatasetError, match="two articles are called 'A_cat'"):
        squad.load(str(tmp_path / "s.json"))


def test_squad_v2_leaves_the_impossible_out(tmp_path) -> None:
    article = json.loads(json.dumps(ARTICLE))
    article["paragraphs"][0]["qas"].append({"id": "c", "question": "Why?", "answers": [], "is_impossible": True})
    (tmp_path / "s.json").write_text(json.dumps({"data": [article]}))
    assert squad.load(str(tmp_path / "s.json")).notes == ("1 unanswerable questions left out",)


# ---- bad input: one message with the place

LINES = "\n".join(json.dumps(row) for row in CORPUS)
BAD_BEIR = {
    "no folder": (None, "no such file or folder"),
    "missing corpus": ({"corpus": None}, r"corpus\.jsonl: no such file"),
    "missing queries": ({"queries": None}, r"queries\.jsonl: no such file"),
    "missing qrels": ({"qrels": None}, r"neither qrels\.tsv nor qrels/\*\.tsv"),
    "empty corpus": ({"corpus": ""}, r"corpus\.jsonl: the file is empty"),
    "blank corpus": ({"corpus": "\n \n"}, r"corpus\.jsonl: the file is empty"),
    "truncated corpus": ({"corpus": LINES[:-9]}, r"corpus\.jsonl:4: not JSON"),
    "bad json": ({"corpus": '{"_id": "1", "text": "a"}\n{oops}'}, r"corpus\.jsonl:2: not JSON"),
    "a list": ({"corpus": "[1, 2]"}, r"corpus\.jsonl:1: a JSON object is expected, not list"),
    "no id": ({"corpus": [{"text": "a"}]}, r"corpus\.jsonl:1: '_id' must be"),
    "null id": ({"corpus": [{"_id": None, "text": "a"}]}, r"corpus\.jsonl:1: '_id' must be"),
    "float id": ({"corpus": [{"_id": 1.5, "text": "a"}]}, r"corpus\.jsonl:1: '_id' must be"),
    "blank id": ({"corpus": [{"_id": " ", "text": "a"}]}, r"corpus\.jsonl:1: '_id' must be"),
    "no text": (
        {"corpus": [{"_id": "1", "title": "A", "body": "x"}]},
        r"corpus\.jsonl:1: 'text' must be text, not None; the keys of this row: '_id', 'title', 'body'",
    ),
    "text is a number": ({"corpus": [{"_id": "1", "text": 5}]}, r"corpus\.jsonl:1: 'text' must be text"),
    "duplicate documents": ({"corpus": [*CORPUS, CORPUS[0]]}, "1 document ids occur more than once: '1'"),
    "int and text id": ({"corpus": [*CORPUS, {"_id": 1, "text": "x"}]}, "1 document ids occur more than once: '1'"),
    "mostly empty documents": (
        {"corpus": [{"_id": str(i), "text": " " * (i > 1)} for i in range(4)]},
        "4 of 4 documents have no text",
    ),
    "duplicate queries": ({"queries": [*QUERIES, QUERIES[0]]}, "1 query ids occur more than once: 'q1'"),
    "empty query": (
        {"queries": [*QUERIES, {"_id": "q3", "text": "  ", "answers": ["x"]}]},
        "1 queries have no text; first: 'q3'",
    ),
    "answers are no texts": (
        {"queries": [{"_id": "q1", "text": "a", "answers": [1]}]},
        r"queries\.jsonl:1: 'answers' must be",
    ),
    "evidence is no list of spans": (
        {"queries": [{**QUERIES[0], "evidence": ["x"]}, QUERIES[1]]},
        r"queries\.jsonl:1: evidence must be",
    ),
    "evidence outside": (
        {"queries": [{**QUERIES[0], "evidence": [{"doc_id": "1", "start": 0, "end": 99}]}, QUERIES[1]]},
        r"evidence of query 'q1' is characters \[0, 99\).*which has 6",
    ),
    "evidence backwards": (
        {"queries": [{**QUERIES[0], "evidence": [{"doc_id": "1", "start": 3, "end": 3}]}, QUERIES[1]]},
        "evidence of query 'q1'",
    ),
    "evidence nowhere": (
        {"queries": [{**QUERIES[0], "evidence": [{"doc_id": "9", "start": 0, "end": 1}]}, QUERIES[1]]},
        "unknown document '9'",
    ),
    "qrels of unknown queries": (
        {"qrels": QRELS + "".join(f"x{i}\t1\t1\n" for i in range(9))},
        "name 9 query ids.*'x0', 'x1', 'x2', 'x3', 'x4', …",
    ),
    "qrels of unknown documents": (
        {"qrels": QRELS + "".join(f"q1\tz{i}\t1\n" for i in range(9))},
        r"name 9 document ids.*'z0' \(of query 'q1'\), .*'z4' \(of query 'q1'\), … \(9 in all\).*dataset.strict=false",
    ),
    "padded ids": ({"qrels": "q1\t01\t1\nq2\t2\t1\n"}, "1 and '1' are the same but 1 and '01' are not"),
    "a lone surrogate in an id": (
        {"corpus": LINES.replace('"_id": "1"', '"_id": "\\ud8001"')},
        r"ids hold lone surrogates.*'\\ud8001'",
    ),
    "a fraction as the first grade": ({"qrels": "q1\t1\t1.5\n"}, r"qrels\.tsv:1: .*whole number"),
    "contradicting qrels": ({"qrels": QRELS + "q1\t1\t2\n"}, "judged twice, as 1 and as 2"),
    "qrels with words": ({"qrels": QRELS + "q1\t3\thigh\n"}, r"qrels\.tsv:4: .*whole number"),
    "qrels with two columns": ({"qrels": "q1\t1\n"}, "qrels"),
    "qrels empty": ({"qrels": ""}, r"qrels\.tsv: the file is empty"),
    "nothing relevant": (
        {"queries": [{"_id": "q1", "text": "a"}], "qrels": "q1\t1\t0\n"},
        "no query has a relevant document or a reference answer",
    ),
}


@pytest.mark.parametrize("case", BAD_BEIR, ids=str)
def test_a_bad_beir_folder_is_refused_with_its_place(tmp_path, case: str) -> None:
    change, message = BAD_BEIR[case]
    path = tmp_path / "set"
    if change is not None:
        beir_folder(path, **change)
    with pytest.raises(DatasetError, match=message):
        beir.load(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [', r"\.json:1: not JSON .*complete"),
        ("[]", "not SQuAD"),
        ('{"version": 1}', "not SQuAD"),
        ('{"data": [{"title": "x"}]}', "article 0: not SQuAD: KeyError 'paragraphs'"),
        (
            json.dumps(
                {"data": [{**ARTICLE, "paragraphs": [{"context": "Dogs", "qas": ARTICLE["paragraphs"][0]["qas"]}]}]}
            ),
            "is not at 0",
        ),
        ("", "the file is empty"),
    ],
)
def test_a_bad_squad_file_is_refused_with_its_place(tmp_path, content: str, message: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        squad.load(str(tmp_path / "s.json"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "x"}], r":1: not an ms_marco v2.1 record \(KeyError: 'passages'\)"),
        ([{**RECORD, "passages": {"is_selected": [1], "passage_text": ["a", "b"]}}], ":1: not an ms_marco"),
        ([RECORD, RECORD], "1 query ids occur more than once"),
        ([{**RECORD, "passages": {"is_selected": [0], "passage_text": ["a"]}}], "there are no queries"),
    ],
)
def test_a_bad_msmarco_file_is_refused_with_its_place(tmp_path, rows: list, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        msmarco.load(str(write_jsonl(tmp_path / "r.jsonl", rows)))


def test_an_unset_path_names_its_key() -> None:
    with pytest.raises(DatasetError, match="dataset.path is not set"):
        beir.load(None)
    with pytest.raises(DatasetError, match="dataset.documents is not set"):
        jsonl.load(None, None)
    for load in (beir.load, squad.load, msmarco.load):
        for count in (0, -2, 1.5):
            with pytest.raises(DatasetError, match=f"dataset.num_queries={count}: a whole number"):
                load("x", num_queries=count)


def test_a_file_that_is_not_utf8_is_said(tmp_path) -> None:
    folder = beir_folder(tmp_path / "s")
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "1", "text": "caf\xe9"}')
    with pytest.raises(DatasetError, match="not UTF-8 text at byte"):
        beir.load(str(folder))


# ---- what is mended and noted


def test_few_empty_documents_are_dropped_and_counted(tmp_path) -> None:
    corpus = [{"_id": str(i), "text": f"t{i}"} for i in range(1, 20)] + [{"_id": "e", "text": " \n"}]
    qrels = QRELS + "q1\te\t0\nq2\te\t1\n"
    dataset = beir.load(str(beir_folder(tmp_path / "s", corpus=corpus, qrels=qrels)))
    assert dataset.notes == ("1 empty documents dropped, with their judgements",)
    assert dataset.qrels == {"q1": {"1": 1}, "q2": {"2": 2}}


def test_a_document_with_a_title_alone_is_found_by_it(tmp_path) -> None:
    corpus = [{"_id": "1", "title": "Apples of Northford", "text": ""}, {"_id": "2", "title": "Tea", "text": None}]
    dataset = beir.load(str(beir_folder(tmp_path / "s", corpus=corpus)))
    assert [(d.text, d.title) for d in dataset.documents] == [("Apples of Northford", ""), ("Tea", "")]
    assert dataset.notes == ("2 of 2 documents have a title and no text: they are found by their title",)
    assert dataset.qrels == {"q1": {"1": 1}, "q2": {"2": 2}}


def test_a_grade_of_1_0_is_1(tmp_path) -> None:
    assert beir.load(str(beir_folder(tmp_path / "s", qrels="q1\t1\t1.0\nq2\t2\t2.\n"))).qrels == {
        "q1": {"1": 1},
        "q2": {"2": 2},
    }
    documents = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    questions = write_jsonl(tmp_path / "q.jsonl", [{**QUESTIONS[2], "relevant": {"birds": 2.0, "trees": 1}}])
    grade = jsonl.load(str(documents), str(questions)).qrels["q3"]["birds"]
    assert (grade, type(grade)) == (2, int)


def test_gold_that_is_not_there_is_left_out_on_request_and_counted(tmp_path) -> None:
    folder = str(beir_folder(tmp_path / "s", qrels=QRELS + "q2\tgone\t1\nq3\t1\t1\n"))
    dataset = beir.load(folder, strict=False)
    assert dataset.qrels == {"q1": {"1": 1}, "q2": {"2": 2}}
    assert dataset.notes == (
        "gold that is not among the documents left out (strict=false): 'gone' (of query 'q2')",
        "judgements of 1 unknown queries left out (strict=false): 'q3'",
    )
    with pytest.raises(DatasetError, match="dataset.strict=maybe"):
        beir.load(folder, strict="maybe")


def test_a_question_whose_only_gold_is_not_there_is_named(tmp_path) -> None:
    evidence = [{"doc_id": "gone", "start": 0, "end": 4}]
    rows = [*QUESTIONS[:2], {"id": "lost", "question": "Who?", "evidence": evidence}]
    files = [str(write_jsonl(tmp_path / f"{n}.jsonl", r)) for n, r in (("d", DOCUMENTS), ("q", rows))]
    with pytest.raises(DatasetError, match=r"'gone' \(of query 'lost'\)"):
        jsonl.load(*files)
    dataset = jsonl.load(*files, strict=False)
    assert [query.id for query in dataset.queries] == ["q1", "q2"]
    assert dataset.notes[-1] == "1 queries without a relevant document or an answer left out: 'lost'"


def test_a_gzipped_file_that_grows_without_end_is_refused(tmp_path) -> None:
    bomb = tmp_path / "mine.jsonl.gz"
    bomb.write_bytes(gzip.compress(b" " * 50_000_000))
    with pytest.raises(DatasetError, match=r"mine\.jsonl\.gz: unzipped it is more than 200 times as large"):
        jsonl.load(str(bomb), str(bomb))


def test_gzipped_files_are_read_as_plain_ones(tmp_path) -> None:
    plain = beir.load(str(beir_folder(tmp_path / "set")))
    (tmp_path / "zipped").mkdir()
    zipped = beir_folder(tmp_path / "zipped" / "set")
    for path in list(zipped.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert beir.load(str(zipped)) == plain
    documents, questions = zipped / "corpus.jsonl.gz", tmp_path / "mine.jsonl.gz"
    questions.write_bytes(gzip.compress(b'{"question": "one?", "relevant": 1}'))
    assert jsonl.load(str(documents), str(questions)).name == "mine"
    questions.write_bytes(gzip.compress(b'{"question": "one?", "relevant": 1}')[:-9])
    with pytest.raises(DatasetError, match=r"mine\.jsonl\.gz: can't be unzipped"):
        jsonl.load(str(documents), str(questions))


def test_trecs_qrels_txt_is_found(tmp_path) -> None:
    folder = beir_folder(tmp_path / "s", qrels=None)
    (folder / "qrels.txt").write_text("q1 0 1 1\nq2 Q0 2 2\n")
    assert beir.load(str(folder)).qrels == {"q1": {"1": 1}, "q2": {"2": 2}}


def test_keys_that_are_not_read_are_named_with_what_they_may_mean(tmp_path) -> None:
    rows = [{"question": "Who purrs?", "relevant": "cats", "anwser": "Cats", "topic": 1} for _ in range(2)]
    files = [str(write_jsonl(tmp_path / f"{n}.jsonl", r)) for n, r in (("d", DOCUMENTS), ("q", rows))]
    assert jsonl.load(*files).notes == (
        "q.jsonl: keys that are not read: 'anwser' (in 2 rows; did you mean 'answer'?), 'topic' (in 2 rows)",
    )


def test_null_answers_leave_the_answer(tmp_path) -> None:
    rows = [{"question": "Who purrs?", "answers": None, "answer": "Cats"}, {"question": "Who?", "relevant": "cats"}]
    files = [str(write_jsonl(tmp_path / f"{n}.jsonl", r)) for n, r in (("d", DOCUMENTS), ("q", rows))]
    assert [query.answers for query in jsonl.load(*files).queries] == [("Cats",), ()]


def test_repeated_equal_judgements_are_merged_and_counted(tmp_path) -> None:
    dataset = beir.load(str(beir_folder(tmp_path / "s", qrels=QRELS + "q1\t1\t1\n")))
    assert dataset.notes == ("1 repeated judgements merged",)


def test_queries_without_anything_known_are_left_out_and_counted(tmp_path) -> None:
    dataset = beir.load(str(beir_folder(tmp_path / "s", qrels=QRELS.replace("q2\t2\t2", "q2\t2\t0"))))
    assert dataset.notes == ("1 queries without a relevant document or an answer left out: 'q2'",)


def test_lone_surrogates_are_replaced_one_for_one(tmp_path) -> None:
    assert replace_surrogates("a\ud800b") == "a\ufffdb"
    assert replace_surrogates("a\ud83d\ude00b") == "a\ufffd\ufffdb"
    assert replace_surrogates("ok 😀") == "ok 😀"
    folder = beir_folder(tmp_path / "s", corpus=LINES.replace("text 1", "te\\ud800xt 1"))
    text = beir.load(str(folder)).documents[0].text
    text.encode()
    assert len(text) == len("te?xt 1")


@given(st.text())
def test_encodable_keeps_length_and_encodable_text(text: str) -> None:
    assert replace_surrogates(text) == text


def test_line_separators_inside_json_do_not_end_a_line(tmp_path) -> None:
    corpus = '{"_id": "1", "text": "a\u2028b"}\n{"_id": "2", "text": "c"}'
    assert len(beir.load(str(beir_folder(tmp_path / "s", corpus=corpus))).documents) == 2


# ---- split, sample, fingerprint


def dataset_of(count: int) -> Dataset:
    from rag_opt.records.documents import Document, Query

    return Dataset(
        "x",
        (Document("d", "t"),),
        tuple(Query(f"q{i}", f"t{i}") for i in range(count)),
        {f"q{i}": {"d": 1} for i in range(count)},
    )


@given(st.integers(4, 200), st.floats(0.2, 0.8), st.integers(0, 5))
def test_a_split_is_a_repeatable_partition(count: int, share: float, seed: int) -> None:
    dataset = dataset_of(count)
    dev, test = split_dataset(dataset, share, seed)
    ids = [{q.id for q in part.queries} for part in (dev, test)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {q.id for q in dataset.queries}
    assert len(ids[1]) == round(share * count)
    assert split_dataset(dataset, share, seed) == (dev, test)
    shuffled = replace(dataset, queries=tuple(reversed(dataset.queries)))
    assert {q.id for q in split_dataset(shuffled, share, seed)[1].queries} == ids[1]


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(DatasetError, match="both sides need at least one"):
        split_dataset(dataset_of(1), 0.3, 0)


@given(st.integers(0, 20), st.integers(1, 25), st.integers(0, 3))
def test_a_sample_is_a_repeatable_subset(count: int, wanted: int, seed: int) -> None:
    ids = [f"i{i}" for i in range(count)]
    assert sample_ids(ids, wanted, seed) == sample_ids(ids[::-1], wanted, seed)
    assert len(sample_ids(ids, wanted, seed)) == min(count, wanted)


def test_the_fingerprint_sees_every_part(tmp_path) -> None:
    base = beir_folder(tmp_path / "a")
    prints = {beir.load(str(base)).fingerprint}
    changes = (
        {"corpus": [{**CORPUS[0], "text": "other"}, *CORPUS[1:]]},
        {"corpus": [{**CORPUS[0], "title": "T"}, *CORPUS[1:]]},
        {"queries": [{**QUERIES[0], "answers": ["2"]}, QUERIES[1]]},
        {"queries": [{**QUERIES[0], "evidence": [{"doc_id": "1", "start": 0, "end": 1}]}, QUERIES[1]]},
        {"qrels": QRELS.replace("q1\t1\t1", "q1\t1\t2")},
    )
    for number, change in enumerate(changes):
        prints.add(beir.load(str(beir_folder(tmp_path / f"c{number}", **change))).fingerprint)
    assert len(prints) == 6
    assert beir.load(str(beir_folder(tmp_path / "b"))).fingerprint in prints
