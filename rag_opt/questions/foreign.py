"""Questions as other programs keep them → rows as rag_opt.datasets.jsonl reads them.

Known are the columns of ragas, of Haystack's and LlamaIndex's evaluation sets and their like, as CSV, JSON or JSON
Lines; LlamaIndex's pairs of queries and relevant documents; BEIR's folders; MLflow's traces with what people expected.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_opt.datasets.beir import read_qrels, read_queries
from rag_opt.datasets.files import read_json_lines, read_text_file, resolve_path
from rag_opt.documents.quotes import find_quote
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Document, Quote

QUESTION = ("question", "query", "user_input", "input", "questions", "queries", "prompt")
ANSWER = (
    *("answer", "answers", "reference", "reference_answer", "ground_truth", "ground_truths", "ground_truth_answer"),
    *("ground_truth_answers", "expected_response", "expected_answer"),
)
CONTEXTS = ("reference_contexts", "ground_truth_documents", "contexts", "context", "ground_truth_context")
RELEVANT = (
    "relevant",
    "relevant_docs",
    "relevant_ids",
    "doc_ids",
    "document_ids",
    "document_id",
    "expected_document_ids",
)
"""The names under which others keep question, answer, evidence and relevant documents; the first one there counts."""

LARGEST = 10_000_000
"""Characters of a cell."""

CONTENT = ("content", "page_content", "text")

TRACES, MOST = "traces:", 10_000
"""How a source begins that is an MLflow experiment (traces:sqlite:///mlflow.db#name), and how many traces are read."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """Rows with question, answers, relevant and evidence, those that they have; `lost` contexts are in no document."""

    rows: tuple[Row, ...]
    skipped: int
    contexts: int
    lost: int


def import_questions(source: str, documents: Sequence[Document]) -> Imported:
    """The questions of a file, a folder or an experiment; raises DatasetError where nothing there is one.

    Contexts that are given by their texts become quotes of the documents that hold them.
    """
    given = list(_read_source(source))
    rows, counts = list[Row](), Counter[str]()
    for number, row in enumerate(given, 1):
        question = _get_text(row, QUESTION)
        if not question:
            counts["skipped"] += 1
            continue
        answers = _get_texts(row, ANSWER)
        evidence, relevant = [], _get_relevant(row)
        for text in _get_texts(row, CONTEXTS):
            counts["contexts"] += 1
            name = next((each.id for each in documents if find_quote(each, Quote(each.id, text))), None)
            evidence += [] if name is None else [{"doc_id": name, "quote": text}]
            counts["lost"] += name is None
        told = {"relevant": relevant, "answers": answers, "evidence": evidence}
        made = {"id": str(row.get("id") or f"q{number}"), "question": question}
        rows.append({**made, **{key: value for key, value in told.items() if value}})
    if not rows:
        known = ", ".join(QUESTION[:4])
        raise DatasetError(f"{source}: there is no question in it: a column {known} … is expected")
    return Imported(tuple(rows), counts["skipped"], counts["contexts"], counts["lost"])


def _read_source(source: str) -> Iterator[Row]:
    if source.startswith(TRACES):
        yield from _read_traces(source.removeprefix(TRACES))
        return
    path = resolve_path(source, "import")
    if path.is_dir():
        yield from _read_beir(path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        # By default csv refuses a cell above 131,072 characters, which contexts have.
        csv.field_size_limit(LARGEST)
        dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
        try:
            yield from csv.DictReader(io.StringIO(read_text_file(path)), dialect=dialect)
        except csv.Error as error:
            raise DatasetError(f"{path}: its rows can't be told apart: {error}") from error
    elif path.suffix.lower() == ".json":
        yield from _read_json(path)
    else:
        yield from (row for _, row in read_json_lines(path))


def _read_beir(folder: Path) -> Iterator[Row]:
    """The questions of a BEIR folder with what is relevant to them, all splits together."""
    relevant: dict[str, dict[str, int]] = {}
    places = [folder / "qrels.tsv", *sorted((folder / "qrels").glob("*.tsv"))]
    for place in (each for each in places if each.is_file()):
        for row in read_qrels(place):
            relevant.setdefault(row.query_id, {})[row.document_id] = row.grade
    for query in read_queries(folder / "queries.jsonl", Counter()):
        yield {
            "id": query.id,
            "question": query.text,
            "answers": list(query.answers),
            "relevant": relevant.get(query.id),
        }


def _read_json(path: Path) -> Iterator[Row]:
    try:
        given = json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: it is no JSON: {error}") from error
    if isinstance(given, Mapping) and isinstance(given.get("queries"), Mapping):
        # LlamaIndex's EmbeddingQAFinetuneDataset.
        judged = given.get("relevant_docs") or {}
        yield from (
            {"id": name, "question": text, "relevant": judged.get(name)} for name, text in given["queries"].items()
        )
        return
    rows: Any = given.get("examples", given) if isinstance(given, Mapping) else given
    if isinstance(rows, Mapping):
        # Columns, as Haystack's evaluation runs keep them.
        columns = {key: value for key, value in rows.items() if isinstance(value, list)}
        count = min(map(len, columns.values()), default=0)
        rows = [{key: value[row] for key, value in columns.items()} for row in range(count)]
    for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
        if not isinstance(row, Mapping):
            raise DatasetError(f"{path}: entry {number} is no object: {row!r}"[:300])
        yield dict(row)


def _read_traces(source: str) -> Iterator[Row]:
    """A row a trace: what was asked, and what people noted as the expected response."""
    from mlflow import MlflowClient

    url, _, name = source.partition("#")
    client = MlflowClient(url or None)
    experiment = client.get_experiment_by_name(name or "rag_opt")
    if experiment is None:
        raise DatasetError(f"{TRACES}{source}: there is no experiment {name or 'rag_opt'!r} there")
    found = client.search_traces(locations=[experiment.experiment_id], max_results=MOST, include_spans=True)
    for trace in found:
        request = trace.data.request
        try:
            asked = json.loads(request) if isinstance(request, str) else request
        except ValueError:
            # A question that is no JSON stands there as it is.
            asked = request
        expected = [
            each.value
            for each in trace.info.assessments
            if each.expectation is not None and isinstance(each.value, str)
        ]
        yield {"id": trace.info.trace_id, "question": _find_question(asked), "answers": expected}


def _find_question(asked: Any) -> str:
    """What a trace was asked: a text, the last message of its user, or the first text of a field called so."""
    if isinstance(asked, str):
        return asked
    if isinstance(asked, Mapping):
        for key in ("messages", "input"):
            if isinstance(asked.get(key), list):
                users = [each for each in asked[key] if isinstance(each, Mapping) and each.get("role") == "user"]
                return str(users[-1].get("content", "")) if users else ""
        return _get_text(asked, QUESTION) or next(
            (found for each in asked.values() if isinstance(each, Mapping) and (found := _find_question(each))), ""
        )
    return ""


def _get_text(row: Mapping[str, Any], names: Iterable[str]) -> str:
    found = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), "")
    return str(found).strip()


def _get_texts(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The texts under the first of these names, one or a list; a CSV's list is written as JSON or Python does."""
    given: Any = next((row[name] for name in names if row.get(name)), [])
    if isinstance(given, str) and given.strip().startswith("[") and given.strip().endswith("]"):
        given = _parse_list(given)
    # Haystack's documents keep their text as content, LangChain's as page_content.
    listed = [_get_text(each, CONTENT) if isinstance(each, Mapping) else each for each in _as_list(given)]
    return [text.strip() for text in listed if isinstance(text, str) and text.strip()]


def _as_list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _parse_list(text: str) -> list[Any] | str:
    import ast

    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        # The last two are what literal_eval raises for many brackets in one another.
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return found
    return text


def _get_relevant(row: Mapping[str, Any]) -> Any:
    """The relevant documents: ids, or grades by id; a CSV's are apart by ; or |."""
    given = next((row[name] for name in RELEVANT if row.get(name)), None)
    if isinstance(given, str) and not given.strip().startswith("["):
        return [name.strip() for name in given.replace("|", ";").split(";") if name.strip()]
    return _parse_list(given) if isinstance(given, str) else given
