"""Questions that nobody has searched or seen, added to those that confirm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rag_opt.console.terminal import format_names
from rag_opt.datasets.duplicates import group_by_document, group_query_ids
from rag_opt.datasets.files import resolve_path
from rag_opt.datasets.jsonl import load_questions
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset

KEY = "dataset.test"


def add_fresh(
    dev: Dataset, test: Dataset, given: str | None, *, by_document: bool = False
) -> tuple[Dataset, tuple[str, ...]]:
    """The questions that confirm, with those of a file of questions behind them, and a note on these; none for None.

    The file has the form of dataset=jsonl's questions and names the same documents. A question that repeats one of the
    study's own, or belongs with it (`by_document`: is about the same document), is left out. Raises DatasetError for an
    id that the study has already, and where nothing new is left.
    """
    if given is None:
        return test, ()
    path = resolve_path(given, KEY)
    fresh = load_questions(path, test.documents)
    fresh = group_by_document(fresh) if by_document else fresh
    known = {query.id for query in (*dev.queries, *test.queries)}
    if again := known & {query.id for query in fresh.queries}:
        raise DatasetError(
            f"{KEY}={given}: {test.name} has questions of the same ids already: {format_names(sorted(again))}; give "
            "the fresh ones ids of their own"
        )
    kept = _select_new(dev, test, fresh, known)
    if not kept:
        raise DatasetError(f"{KEY}={given}: every question repeats, or belongs with, one of {test.name}: none is fresh")
    left = len(fresh.queries) - len(kept)
    told = f"fresh questions of {Path(given).name} that confirm, too: {len(kept):,}"
    told += f"; left out, since they repeat, or belong with, the study's own: {left:,}" if left else ""
    whole = replace(
        test,
        queries=(*test.queries, *(query for query in fresh.queries if query.id in kept)),
        qrels={**test.qrels, **{key: grades for key, grades in fresh.qrels.items() if key in kept}},
    )
    return whole, (*fresh.notes, told)


def _select_new(dev: Dataset, test: Dataset, fresh: Dataset, known: set[str]) -> set[str]:
    """The ids of the fresh questions that none of the study's own asks; of those that repeat each other all are kept.

    These count as one observation, as they do in any set.
    """
    every = (*dev.queries, *test.queries, *fresh.queries)
    grades = {**dev.qrels, **test.qrels, **fresh.qrels}
    # Grouped together: a fresh question may repeat one of the study's by way of another fresh one.
    groups = group_query_ids(replace(test, queries=every, qrels=grades))
    return {each for ids in groups if known.isdisjoint(ids) for each in ids}
