"""BEIR folders (Thakur et al. 2021, arXiv 2104.08663): corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/*.tsv.

TREC's qrels.txt is read too, and each of them with .gz behind its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rag_opt.datasets.checks import (
    Judgement,
    build_dataset,
    check_count,
    check_flag,
    check_seed,
    exclude_identical,
    replace_surrogates,
    sample_ids,
)
from rag_opt.datasets.files import (
    Row,
    format_unread_keys,
    parse_body,
    parse_id,
    parse_text,
    parse_texts,
    read_json_lines,
    read_text_file,
    resolve_gzipped,
    resolve_path,
)
from rag_opt.datasets.splits import CONFIRMING
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Evidence, Query, Quote

GRADE = re.compile(r"([+-]?\d{1,9})(\.0*)?")
"""A grade in a file, 1.0 being 1: what the measures count with has 32 bits."""

QRELS = ("qrels.tsv", "qrels.txt")
OF_DOCUMENTS = ("_id", "id", "text", "title", "metadata")
OF_QUERIES = ("_id", "id", "text", "metadata", "answers", "evidence")


def load(
    path: str | None,
    qrels: str | None = None,
    num_queries: int | None = None,
    seed: int | None = None,
    *,
    strict: bool = True,
    ignore_identical_ids: bool = True,
) -> Dataset:
    """The dataset of a BEIR folder.

    `qrels` names one file in it (default: qrels.tsv, else qrels.txt, else all of qrels/). Queries that the qrels do not
    mention and that have no answers are left out: BEIR's queries.jsonl holds those of all splits. Where there are
    several qrels, a query is of the split that its file is named after (of several: test, else the last by name).
    `num_queries` keeps the first so many of each split, or with a `seed` so many at random. A queries.jsonl row may
    also carry `answers` and `evidence` [{doc_id, start, end}]. Without `strict` judgements of what is not there are
    left out and counted.
    With `ignore_identical_ids` a document of a query's own id is no hit of it, as BEIR has it, unless it is relevant.
    """
    check_flag("strict", strict)
    check_flag("ignore_identical_ids", ignore_identical_ids)
    check_count("num_queries", num_queries)
    check_seed(seed)
    if qrels is not None and (not isinstance(qrels, str) or Path(qrels).is_absolute() or ".." in Path(qrels).parts):
        raise DatasetError(f"dataset.qrels={qrels}: one file in the folder is expected, such as qrels/test.tsv")
    folder = resolve_path(path, "dataset.path")
    if not folder.is_dir():
        raise DatasetError(f"dataset.path={path}: a folder with corpus.jsonl, queries.jsonl and qrels is expected")
    files = {file: list(read_qrels(file)) for file in _find_qrels_files(folder, qrels)}
    judgements = [row for rows in files.values() for row in rows]
    # A single file divides nothing, whatever it is called.
    splits = _name_splits(files) if len(files) > 1 else {}
    keys, asked = Counter[str](), Counter[str]()
    corpus, questions = (resolve_gzipped(folder / f"{name}.jsonl") for name in ("corpus", "queries"))
    all_queries = list(read_queries(questions, asked))
    judged = {row.query_id for row in judgements}
    queries = [query for query in all_queries if query.id in judged or query.answers]
    queries = _limit_queries([replace(each, split=splits.get(each.id, "")) for each in queries], num_queries, seed)
    known = {query.id for query in all_queries}
    chosen = {query.id for query in queries}
    # Judgements of queries that exist but were not chosen go; those of unknown queries stay, to be reported.
    kept = [row for row in judgements if row.query_id in chosen or row.query_id not in known]
    documents = list(read_corpus(corpus, keys))
    notes = format_unread_keys(corpus, keys, OF_DOCUMENTS) + format_unread_keys(questions, asked, OF_QUERIES)
    # Where no query was chosen all go in: the error is then about their judgements, not about missing queries.
    found = build_dataset(folder.name, documents, queries or all_queries, kept, notes, strict=strict)
    return exclude_identical(found) if ignore_identical_ids else found


def _name_splits(files: Mapping[Path, Sequence[Judgement]]) -> dict[str, str]:
    """The split of each query, by the names of the files that judge it."""
    names = {file: file.name.removesuffix(".gz").rpartition(".")[0] for file in files}
    # What is published on must not be searched because another file has it, too: so it is named last.
    last = sorted(files, key=lambda file: (names[file] == CONFIRMING, names[file]))
    return {row.query_id: names[file] for file in last for row in files[file]}


def _limit_queries(queries: Sequence[Query], count: int | None, seed: int | None) -> list[Query]:
    """So many queries of each split, the first ones or at random."""
    if count is None:
        return list(queries)
    kept: set[str] = set()
    for name in dict.fromkeys(query.split for query in queries):
        ids = [query.id for query in queries if query.split == name]
        kept.update(ids[:count] if seed is None else sample_ids(ids, count, seed))
    return [query for query in queries if query.id in kept]


def _find_qrels_files(folder: Path, name: str | None) -> list[Path]:
    if name is not None:
        return [resolve_gzipped(folder / name)]
    for single in (resolve_gzipped(folder / name) for name in QRELS):
        if single.exists():
            return [single]
    for ending in (".tsv", ".txt"):
        if found := sorted(p for p in (folder / "qrels").glob("*") if p.name.removesuffix(".gz").endswith(ending)):
            return found
    raise DatasetError(f"{folder}: neither qrels.tsv nor qrels/*.tsv is there (nor the same in .txt, or with .gz)")


def read_corpus(path: Path, keys: Counter[str]) -> Iterator[Document]:
    """The documents of a corpus.jsonl; `keys` counts what its rows hold."""
    for where, row in read_json_lines(path):
        keys.update(row.keys())
        yield Document(parse_id(row, where, "_id", "id"), parse_body(row, where), parse_text(row, where, "title", ""))


def read_queries(path: Path, keys: Counter[str]) -> Iterator[Query]:
    """The queries of a queries.jsonl, with answers and evidence where they are given; `keys` counts what rows hold."""
    for where, row in read_json_lines(path):
        keys.update(row.keys())
        evidence, quotes = parse_evidence(row, where)
        query_id = parse_id(row, where, "_id", "id")
        answers = parse_texts(row, where, "answers")
        yield Query(query_id, parse_text(row, where, "text"), answers, evidence, quotes=quotes)


def parse_evidence(row: Row, where: str) -> tuple[tuple[Evidence, ...], tuple[Quote, ...]]:
    """The evidence of a row, none where it is missing or null: spans, and quotes.

    A span is {doc_id, start, end}, characters from 0, a quote {doc_id, quote, page?}. Raises DatasetError for another
    form; whether it lies in its document is checked with the whole dataset.
    """
    found = list(_iterate_evidence(row, where))
    return (
        tuple(each for each in found if isinstance(each, Evidence)),
        tuple(each for each in found if isinstance(each, Quote)),
    )


def _iterate_evidence(row: Row, where: str) -> Iterator[Evidence | Quote]:
    given = row.get("evidence")
    spans = [] if given is None else given
    for span in spans if isinstance(spans, list) else [spans]:
        if isinstance(span, dict) and isinstance(span.get("quote"), str) and span["quote"].strip():
            page = span.get("page")
            document_id = parse_id(span, where, "doc_id")
            yield Quote(document_id, replace_surrogates(span["quote"]), "" if page is None else str(page))
            continue
        if not isinstance(span, dict) or not all(type(span.get(end)) is int for end in ("start", "end")):
            raise DatasetError(
                f"{where}: evidence must be a list of {{doc_id, start, end}} or {{doc_id, quote}}, not {span!r}"[:300]
            )
        yield Evidence(parse_id(span, where, "doc_id"), span["start"], span["end"])


def read_qrels(path: Path) -> Iterator[Judgement]:
    """The judgements of a TSV: query-id, corpus-id, score (or TREC's four columns); a header line is skipped."""
    for number, line in enumerate(read_text_file(path).split("\n"), 1):
        # Where tabs separate the fields an id may hold spaces; TREC's own files have spaces alone.
        fields = line.split("\t") if "\t" in line else line.split()
        # A header is known by its last field, so a file without one does not lose its first judgement.
        if not line.strip() or (number == 1 and not _is_number(fields[-1])):
            continue
        if len(fields) not in (3, 4) or not _is_int(fields[-1]):
            raise DatasetError(
                f"{path}:{number}: query id, document id and a whole number are expected, separated by tabs: {line!r}"[
                    :300
                ]
            )
        # From the end, since TREC has an iteration behind the query's id; by way of float, since 1.0 is a grade, too.
        yield Judgement(fields[0].strip(), fields[-2].strip(), int(float(fields[-1])))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_int(field: str) -> bool:
    return GRADE.fullmatch(field.strip()) is not None
