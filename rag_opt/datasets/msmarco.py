"""Records in the `ms_marco v2.1` schema (Bajaj et al. 2016, arXiv 1611.09268), from files or from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from rag_opt.datasets import beir
from rag_opt.datasets.checks import Judgement, build_dataset, check_count, check_flag, check_seed, sample_ids
from rag_opt.datasets.files import (
    Row,
    get_stem,
    parse_id,
    parse_text,
    parse_texts,
    read_json_lines,
    resolve_gzipped,
    resolve_path,
)
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Query

NO_ANSWER = "No Answer Present."
"""How ms_marco v2.1 marks an unanswerable query."""

FLAGS = {0: False, 1: True}
"""What `is_selected` holds."""


def load(
    path: str | None = None,
    split: str = "validation",
    num_documents: int | None = None,
    num_queries: int | None = None,
    seed: int = 0,
    *,
    strict: bool = True,
) -> Dataset:
    """The dataset of ms_marco v2.1 records.

    `path`: a .jsonl file of records, a folder of them, or a folder where they are already converted to corpus.jsonl,
    queries.jsonl and qrels.tsv; without it, `split` is streamed from the hub (needs `rag-opt-studies[hub]`).
    `num_queries` answerable queries and `num_documents` passages are drawn by `seed`; the passages that are relevant
    to a chosen query always stay. Unanswerable queries are left out and counted; equal passages are one document.
    `strict` is about converted folders, as with `beir`.
    """
    check_flag("strict", strict)
    check_count("num_documents", num_documents)
    check_count("num_queries", num_queries)
    check_seed(seed)
    if path is None:
        # The hub's records come in no useful order; ten passages a record are enough to fill both numbers.
        needed = max(num_queries or 1000, (num_documents or 10_000) // 10) * 3
        streamed = islice(_stream_hub(split), needed)
        note = f"the first {needed:,} records of the hub's {split} split were read"
        return _convert_records("msmarco", streamed, num_documents, num_queries, seed, (note,))
    found = resolve_path(path, "dataset.path")
    if resolve_gzipped(found / "corpus.jsonl").is_file():
        # Queries and passages have numbers of their own here, so equal ones do not mean the same text.
        return _sample_dataset(
            beir.load(str(found), strict=strict, ignore_identical_ids=False), num_documents, num_queries, seed
        )
    files = sorted(p for e in ("jsonl", "jsonl.gz") for p in found.glob(f"*.{e}")) if found.is_dir() else [found]
    if not files:
        raise DatasetError(f"dataset.path={path}: no *.jsonl with ms_marco v2.1 records in this folder")
    rows = (pair for file in files for pair in read_json_lines(file))
    return _convert_records(get_stem(found), rows, num_documents, num_queries, seed)


def _stream_hub(split: str) -> Iterator[tuple[str, Row]]:
    ways_out = (
        "\n  1. local records: dataset.path=<file or folder of ms_marco v2.1 .jsonl>"
        "\n  2. the hub: pip install 'rag-opt-studies[hub]', with a network connection"
    )
    try:
        import datasets

        stream = datasets.load_dataset("microsoft/ms_marco", "v2.1", split=split, streaming=True)
        for number, row in enumerate(stream):
            yield f"hub record {number}", dict(row)
    except ImportError as error:
        raise DatasetError(f"msmarco: dataset.path is not set and `datasets` is not installed.{ways_out}") from error
    except Exception as error:  # whatever the hub's client raises: network, proxy, authentication, schema
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DatasetError(
            f"msmarco: dataset.path is not set and the hub can't be reached ({reason}).{ways_out}"
        ) from error


def _convert_records(
    name: str,
    rows: Iterable[tuple[str, Row]],
    num_documents: int | None,
    num_queries: int | None,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Dataset:
    documents: dict[str, Document] = {}
    queries: list[Query] = []
    judgements: list[Judgement] = []
    unanswerable = 0
    for where, row in rows:
        query, passages = _parse_record(row, where)
        relevant = [passage for passage, selected in passages if selected and passage]
        for number, (passage, _) in enumerate(passages):
            # By their text: a copy under an id of its own would count as a wrong hit wherever the other is the gold.
            documents.setdefault(passage, Document(f"{query.id}_{number}", passage))
        if relevant:
            queries.append(query)
            judgements += [Judgement(query.id, documents[passage].id, 1) for passage in relevant]
        unanswerable += not relevant
    if unanswerable:
        notes = (*notes, f"{unanswerable} unanswerable queries left out")
    whole = build_dataset(name, documents.values(), queries, judgements, notes)
    return _sample_dataset(whole, num_documents, num_queries, seed)


def _parse_record(row: Row, where: str) -> tuple[Query, list[tuple[str, bool]]]:
    try:
        passages: Any = row["passages"]
        selected = [FLAGS[flag] for flag in passages["is_selected"]]
        # Blank passages stay for now, since each must meet its flag in `is_selected`.
        found = [" ".join(each.split()) for each in parse_texts(passages, where, "passage_text", blank=True)]
        answers = tuple(answer for answer in parse_texts(row, where, "answers") if answer != NO_ANSWER)
        query = Query(parse_id(row, where, "query_id"), parse_text(row, where, "query"), answers)
        return query, list(zip(found, selected, strict=True))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: not an ms_marco v2.1 record ({type(error).__name__}: {error}); expected keys: "
            "query, query_id, answers, passages {is_selected, passage_text}"
        ) from error


def _sample_dataset(dataset: Dataset, num_documents: int | None, num_queries: int | None, seed: int) -> Dataset:
    chosen = sample_ids([query.id for query in dataset.queries], num_queries, seed)
    queries = [query for query in dataset.queries if query.id in chosen]
    # Without its relevant passages a chosen query could never be answered.
    needed = {document for query in queries for document, grade in dataset.qrels[query.id].items() if grade > 0}
    others = [document.id for document in dataset.documents if document.id not in needed]
    room = None if num_documents is None else max(0, num_documents - len(needed))
    kept = needed | sample_ids(others, room, seed)
    documents = [document for document in dataset.documents if document.id in kept]
    judgements = [
        Judgement(query.id, document, grade)
        for query in queries
        for document, grade in dataset.qrels[query.id].items()
        if document in kept
    ]
    return build_dataset(dataset.name, documents, queries, judgements, dataset.notes)
