"""The embedded default: Python's own language reference, with questions written for this project.

The corpus is `pydoc_data.topics`, which every CPython carries; it differs a little between versions, so the
fingerprint names the version through the texts. Evidence is kept as short quotes and located in the running text.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from rag_opt.datasets.checks import Judgement, build_dataset, check_count
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Evidence, Query


def load(num_queries: int | None = None) -> Dataset:
    """79 topics and the questions about them; `num_queries` keeps the first so many."""
    from pydoc_data.topics import topics

    check_count("num_queries", num_queries)
    documents = [Document(name, text) for name, text in sorted(topics.items())]
    rows = read_questions()[:num_queries]
    queries = [_build_query(row, topics) for row in rows]
    judgements = [Judgement(row["id"], gold["topic"], 1) for row in rows for gold in row["evidence"]]
    return build_dataset("python_docs", documents, queries, judgements)


def read_questions() -> list[dict[str, Any]]:
    """The rows of python_docs.jsonl: id, question, answer, evidence [{topic, quote}], level."""
    lines = files("rag_opt.datasets").joinpath("python_docs.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _build_query(row: dict[str, Any], topics: dict[str, str]) -> Query:
    evidence = tuple(_locate_quote(row["id"], gold["topic"], gold["quote"], topics) for gold in row["evidence"])
    return Query(row["id"], row["question"], (row["answer"],), evidence)


def _locate_quote(query_id: str, topic: str, quote: str, topics: dict[str, str]) -> Evidence:
    # The words of a quote are the same in every supported Python; where its lines break need not be.
    pattern = r"\s+".join(map(re.escape, quote.split()))
    found = re.search(pattern, topics.get(topic, ""))
    if found is None:
        raise DatasetError(
            f"python_docs: this Python's topic '{topic}' lacks the quote of question {query_id}: {quote}"
        )
    return Evidence(topic, found.start(), found.end())
