"""SQuAD v1.1 and v2 JSON as whole articles with character-span evidence (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_opt.datasets.checks import Judgement, build_dataset, check_count, check_seed, sample_ids
from rag_opt.datasets.files import parse_id, parse_text, read_json_file, resolve_path
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Evidence, Query

SEPARATOR = "\n\n"
"""Stands between the paragraphs of an article."""


def load(path: str | None, num_queries: int | None = None, seed: int = 0) -> Dataset:
    """The dataset of one SQuAD file, or of all *.json in a folder: a document is a whole article.

    Questions that v2 marks impossible are left out and counted; `num_queries` keeps so many at random (by `seed`);
    all articles stay. Two articles of one title must be equal. Raises DatasetError for what is not SQuAD, and for
    an answer that is not at its `answer_start`.
    """
    check_count("num_queries", num_queries)
    check_seed(seed)
    found = resolve_path(path, "dataset.path")
    files = sorted(found.glob("*.json")) if found.is_dir() else [found]
    if not files:
        raise DatasetError(f"dataset.path={path}: no *.json in this folder")
    documents: dict[str, Document] = {}
    queries: list[Query] = []
    impossible = 0
    for file in files:
        for number, article in enumerate(_read_articles(file)):
            document, asked, skipped = _parse_article(article, f"{file}: article {number}")
            if documents.setdefault(document.id, document) != document:
                raise DatasetError(
                    f"{file}: two articles are called '{document.id}' and differ; give each its own title"
                )
            queries += asked
            impossible += skipped
    kept = sample_ids([query.id for query in queries], num_queries, seed)
    queries = [query for query in queries if query.id in kept]
    judgements = [Judgement(q.id, d, 1) for q in queries for d in {span.document_id: 1 for span in q.evidence}]
    notes = [f"{impossible} unanswerable questions left out"] if impossible else []
    return build_dataset(found.stem, documents.values(), queries, judgements, notes)


def _read_articles(file: Path) -> list[Any]:
    content = read_json_file(file)
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise DatasetError(f"{file}: not SQuAD: an object with a list under 'data' is expected")
    return articles


def _parse_article(article: Any, where: str) -> tuple[Document, list[Query], int]:
    try:
        title = parse_id(article, where, "title")
        contexts = [parse_text(paragraph, where, "context") for paragraph in article["paragraphs"]]
        queries: list[Query] = []
        impossible = offset = 0
        for paragraph, context in zip(article["paragraphs"], contexts, strict=True):
            for question in paragraph["qas"]:
                spans = list(_parse_spans(question, title, context, offset, where))
                impossible += not spans
                if spans:
                    texts = tuple(dict.fromkeys(parse_text(answer, where, "text") for answer in question["answers"]))
                    queries.append(
                        Query(
                            parse_id(question, where, "id"),
                            parse_text(question, where, "question"),
                            texts,
                            tuple(spans),
                        )
                    )
            # Evidence counts the characters of the whole article, as it is joined below.
            offset += len(context) + len(SEPARATOR)
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(f"{where}: not SQuAD: {type(error).__name__} {error}") from error
    # The titles are those of Wikipedia's addresses, with _ for spaces.
    return Document(title, SEPARATOR.join(contexts), title.replace("_", " ")), queries, impossible


def _parse_spans(question: Any, title: str, context: str, offset: int, where: str) -> Iterator[Evidence]:
    # Several annotators often mark the same span: it counts once.
    spans = {(_parse_start(answer, where), parse_text(answer, where, "text")) for answer in question["answers"]}
    for start, answer in sorted(spans):
        if context[start : start + len(answer)] != answer:
            raise DatasetError(f"{where}: answer {answer!r} of question '{question['id']}' is not at {start}"[:300])
        yield Evidence(title, offset + start, offset + start + len(answer))


def _parse_start(answer: Any, where: str) -> int:
    start = answer["answer_start"]
    if type(start) is not int or start < 0:
        raise DatasetError(f"{where}: 'answer_start' must be a whole number from 0, not {start!r}"[:300])
    return start
