"""Raw rows → one checked `Dataset`: the same rules, counted notes and messages for every format."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rag_opt.console.terminal import format_names, sanitize_line
from rag_opt.datasets.files import NAMED
from rag_opt.documents.quotes import find_evidence
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Documents, Query, SourceFile
from rag_opt.records.keys import compute_key

EMPTY_LIMIT = 0.10
"""The largest share of empty documents that is dropped with a note; more is a broken file."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair: no file and no database takes it alone."""


@dataclass(frozen=True)
class Judgement:
    """One line of the qrels."""

    query_id: str
    document_id: str
    grade: int


def build_dataset(
    name: str,
    documents: Iterable[Document],
    queries: Iterable[Query],
    judgements: Iterable[Judgement],
    notes: Sequence[str] = (),
    *,
    strict: bool = True,
) -> Dataset:
    """The dataset of these rows.

    A document without a text but with a title has its title as its text. Dropped and noted: empty documents (up to
    10 %), queries without a relevant document or an answer, repeated equal judgements; unless `strict`, gold that is
    not there. Raises DatasetError for what can only be a mistake: duplicate ids, empty queries, qrels that name unknown
    ids, evidence outside its document, nothing left.
    """
    found = list(notes)
    all_documents = _fill_from_titles(_check_documents(name, documents), found)
    all_queries = _check_queries(name, queries)
    known = {d.id for d in all_documents}
    if not strict:
        judgements, all_queries = _drop_unknown(judgements, all_queries, known, found)
    grades = _build_qrels(name, judgements, known, {q.id for q in all_queries}, found)
    # Only now: to the qrels a document that is dropped as empty is no unknown one.
    kept_documents = _drop_empty(name, all_documents, found)
    empty = known - {d.id for d in kept_documents}
    grades = {q: {d: g for d, g in row.items() if d not in empty} for q, row in grades.items()} if empty else grades
    kept = [q for q in all_queries if q.answers or any(grade > 0 for grade in grades.get(q.id, {}).values())]
    if len(kept) < len(all_queries):
        left = {q.id for q in all_queries} - {q.id for q in kept}
        named = format_names(q.id for q in all_queries if q.id in left)
        found.append(f"{len(left)} queries without a relevant document or an answer left out: {named}")
    if not kept:
        raise DatasetError(f"{name}: no query has a relevant document or a reference answer; check the qrels")
    _check_evidence(name, kept, kept_documents)
    kept = _find_quotes(name, kept, kept_documents, found, strict=strict)
    return Dataset(name, tuple(kept_documents), tuple(kept), {q.id: grades.get(q.id, {}) for q in kept}, tuple(found))


def build_corpus(name: str, documents: Iterable[Document], notes: list[str]) -> list[Document]:
    """The documents of these rows as a data set has them; what is dropped goes to the notes. Raises DatasetError."""
    return _drop_empty(name, _fill_from_titles(_check_documents(name, documents), notes), notes)


def _check_documents(name: str, rows: Iterable[Document]) -> list[Document]:
    documents = [_clean_document(row) for row in rows]
    if not documents:
        raise DatasetError(f"{name}: there are no documents")
    _check_ids(name, "document", [d.id for d in documents])
    return documents


def _fill_from_titles(documents: list[Document], notes: list[str]) -> list[Document]:
    """A document whose text is empty is its title: that is what there is to be found."""
    count = sum(bool(d.title.strip()) for d in documents if not d.text.strip())
    if not count:
        return documents
    notes.append(f"{count:,} of {len(documents):,} documents have a title and no text: they are found by their title")
    return [d if d.text.strip() or not d.title.strip() else Document(d.id, d.title) for d in documents]


def _drop_unknown(
    judgements: Iterable[Judgement], queries: list[Query], documents: set[str], notes: list[str]
) -> tuple[list[Judgement], list[Query]]:
    """The judgements and the evidence of what is there; what is left out is noted."""
    asked, rows = {query.id for query in queries}, list(judgements)
    kept = [row for row in rows if row.query_id in asked and row.document_id in documents]
    if missing := _format_missing([row for row in rows if row.query_id in asked], documents):
        notes.append(f"gold that is not among the documents left out (strict=false): {missing}")
    if unknown := {row.query_id for row in rows} - asked:
        named = format_names(sorted(unknown))
        notes.append(f"judgements of {len(unknown)} unknown queries left out (strict=false): {named}")
    return kept, [
        replace(
            query,
            evidence=tuple(span for span in query.evidence if span.document_id in documents),
            quotes=tuple(quote for quote in query.quotes if quote.document_id in documents),
        )
        for query in queries
    ]


def _format_missing(judgements: Iterable[Judgement], documents: set[str]) -> str:
    """The ids that are in no document, each with a query that it was to answer; "" for none."""
    asked: dict[str, str] = {}
    for row in judgements:
        if row.document_id not in documents:
            asked.setdefault(row.document_id, row.query_id)
    told = [
        f"'{sanitize_line(document)}' (of query '{sanitize_line(query)}')"
        for document, query in islice(asked.items(), NAMED)
    ]
    return ", ".join(told) + (f", … ({len(asked):,} in all)" if len(asked) > NAMED else "")


def _drop_empty(name: str, documents: list[Document], notes: list[str]) -> list[Document]:
    # Of a file nobody knows before it is read.
    kept = [d for d in documents if d.text.strip() or isinstance(d, SourceFile)]
    empty = len(documents) - len(kept)
    if empty > EMPTY_LIMIT * len(documents):
        raise DatasetError(
            f"{name}: {empty} of {len(documents)} documents have no text (at most {EMPTY_LIMIT:.0%} are dropped); "
            f"first: {format_names(d.id for d in documents if not d.text.strip())}. Is the text under another key?"
        )
    if empty:
        notes.append(f"{empty} empty documents dropped, with their judgements")
    return kept


def _check_queries(name: str, rows: Iterable[Query]) -> list[Query]:
    queries = [
        replace(row, text=replace_surrogates(row.text), answers=tuple(map(replace_surrogates, row.answers)))
        for row in rows
    ]
    if not queries:
        raise DatasetError(f"{name}: there are no queries")
    _check_ids(name, "query", [q.id for q in queries])
    blank = [q.id for q in queries if not q.text.strip()]
    if blank:
        raise DatasetError(
            f"{name}: {len(blank)} queries have no text; first: {format_names(blank)}. Remove or fill them"
        )
    return queries


def _build_qrels(
    name: str, rows: Iterable[Judgement], documents: set[str], queries: set[str], notes: list[str]
) -> dict[str, dict[str, int]]:
    judgements = list(rows)
    _check_known(name, "query", queries, [j.query_id for j in judgements])
    qrels: dict[str, dict[str, int]] = {}
    repeated = 0
    for judgement in judgements:
        grades = qrels.setdefault(judgement.query_id, {})
        if grades.get(judgement.document_id, judgement.grade) != judgement.grade:
            raise DatasetError(
                f"{name}: query '{judgement.query_id}' and document '{judgement.document_id}' are judged twice, "
                f"as {grades[judgement.document_id]} and as {judgement.grade}; keep one"
            )
        repeated += judgement.document_id in grades
        grades[judgement.document_id] = judgement.grade
    if missing := _format_missing(judgements, documents):
        _check_known(name, "document", documents, [j.document_id for j in judgements], missing)
    if repeated:
        notes.append(f"{repeated} repeated judgements merged")
    return qrels


def _check_known(name: str, kind: str, known: set[str], named: Iterable[str], told: str = "") -> None:
    unknown = list(dict.fromkeys(given for given in named if given not in known))
    if not unknown:
        return
    example = f"such as '{min(known)}'" if known else "none"
    raise DatasetError(
        f"{name}: the qrels name {len(unknown)} {kind} ids that are not in the {kind} file: "
        f"{told or format_names(unknown)}. "
        f"Known ids are {example}; ids are compared as text, so 1 and '1' are the same but 1 and '01' are not. "
        "Where files are cut on purpose: dataset.strict=false leaves such judgements out, and counts them"
    )


def _check_ids(name: str, kind: str, ids: list[str]) -> None:
    broken = [given for given in ids if not _is_encodable(given)]
    if broken:
        raise DatasetError(f"{name}: {len(broken)} {kind} ids hold lone surrogates, first: {broken[0]!a}; rename them")
    twice = [given for given, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{name}: {len(twice)} {kind} ids occur more than once: {format_names(twice)}. Make them unique"
        )


def _find_quotes(
    name: str, queries: list[Query], documents: list[Document], notes: list[str], *, strict: bool
) -> list[Query]:
    """The queries with their quotes as evidence; those of files wait for a parser."""
    if not any(query.quotes for query in queries) or any(isinstance(each, SourceFile) for each in documents):
        return queries
    found = find_evidence(queries, documents)
    if found.missing and strict:
        raise DatasetError(f"{name}: {found.format_missing()}; dataset.strict=false counts them as never retrieved")
    notes += [found.format_missing()] if found.missing else []
    return list(found.queries)


def _check_evidence(name: str, queries: list[Query], documents: list[Document]) -> None:
    lengths = {d.id: len(d.text) for d in documents}
    files = {d.id for d in documents if isinstance(d, SourceFile)}
    for query in queries:
        for document_id in query.evidence_documents:
            if document_id not in lengths:
                raise DatasetError(f"{name}: evidence of query '{query.id}' is in unknown document '{document_id}'")
        for span in query.evidence:
            length = lengths[span.document_id]
            if span.document_id in files:
                raise DatasetError(
                    f"{name}: evidence of query '{query.id}' is characters of the file '{span.document_id}', which "
                    "parsers read differently: give a quote, {doc_id, quote}"
                )
            if not 0 <= span.start < span.end <= length:
                raise DatasetError(
                    f"{name}: evidence of query '{query.id}' is characters [{span.start}, {span.end}) of document "
                    f"'{span.document_id}', which has {length}; offsets count characters of `text`, from 0"
                )


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates replaced (U+FFFD), one for one, so that spans keep their place."""
    return SURROGATE.sub("\ufffd", text)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean_document(row: Document) -> Document:
    if _is_encodable(row.text) and _is_encodable(row.title):
        return row
    return replace(row, text=replace_surrogates(row.text), title=replace_surrogates(row.title))


def exclude_identical(dataset: Dataset) -> Dataset:
    """The dataset whose queries name the document of their own id as themselves, where it is not relevant to them."""
    ids = {document.id for document in dataset.documents}
    queries = [
        replace(query, own=query.id) if query.id in ids and dataset.qrels[query.id].get(query.id, 0) <= 0 else query
        for query in dataset.queries
    ]
    return replace(dataset, queries=tuple(queries))


def get_corpus(dataset: Dataset) -> Documents:
    """The corpus for the pipelines, keyed by ids, titles and texts, or files' bytes."""
    return Documents(dataset.documents, compute_key("documents", [d.content for d in dataset.documents]))


def check_count(key: str, count: int | None) -> None:
    """Raise DatasetError unless a number of things to keep is None or at least 1."""
    # By type, since isinstance takes true for an int.
    if count is not None and (type(count) is not int or count < 1):
        raise DatasetError(f"dataset.{key}={count}: a whole number of at least 1 is expected, or null for all")


def check_flag(key: str, given: Any) -> None:
    """Raise DatasetError unless a choice of two is said by true or false."""
    if not isinstance(given, bool):
        raise DatasetError(f"dataset.{key}={given}: true or false is expected")


def check_seed(seed: Any) -> None:
    """Raise DatasetError unless a draw's seed is a whole number or None."""
    if seed is not None and type(seed) is not int:
        raise DatasetError(f"dataset.seed={seed}: a whole number is expected")


def sample_ids(ids: Sequence[str], count: int | None, seed: int) -> set[str]:
    """`count` of the ids at random but repeatably; all where count is None or not smaller."""
    if count is None or count >= len(ids):
        return set(ids)
    # Sorted, so that the order of the file does not decide which are drawn.
    return set(random.Random(seed).sample(sorted(ids), count))
