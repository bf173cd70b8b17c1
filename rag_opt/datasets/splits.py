"""Which questions are searched and which confirm: the data set's own splits where it brings them, else a random cut."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from rag_opt.console.terminal import format_names
from rag_opt.datasets.duplicates import group_query_ids
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset
from rag_opt.records.keys import compute_key

AUTO, ALL = "auto", "all"
CONFIRMING = "test"
"""The split that confirms where none is named: the one that results are published on."""

SEARCHED = ("dev", "validation", "valid", "val", "train")
"""Of these the first that a data set has beside it is searched: train holds many times more than a search needs."""


def choose_splits(dataset: Dataset, search: str = AUTO, confirm: str = AUTO) -> Dataset:
    """The dataset with the questions of the two splits alone; as it is where the questions are to be cut at random.

    What was chosen and left out is noted. Of questions that repeat each other across the two, those to be searched go.
    Raises DatasetError for a split that it does not have.
    """
    counts = Counter(query.split for query in dataset.queries if query.split)
    chosen = _choose_names(dataset.name, counts, search, confirm)
    if chosen is None:
        return dataset
    kept = _select_queries(dataset, {query.id for query in dataset.queries if query.split in chosen})
    seen = {query.id for query in kept.queries if query.split == chosen[0]}
    twice = {each for ids in group_query_ids(kept) if not seen.issuperset(ids) for each in seen.intersection(ids)}
    if not seen - twice:
        reason = f"every question of {chosen[0]} repeats one of {chosen[1]}: nothing is left to search"
        raise DatasetError(f"{dataset.name}: {reason}; dataset.search=all cuts all of them at random")
    kept = _select_queries(kept, {query.id for query in kept.queries} - twice)
    sizes = f"{len(seen - twice):,} questions of {chosen[0]} are searched, {counts[chosen[1]]:,} of {chosen[1]} confirm"
    told = [f"its own splits are kept: {sizes} (dataset.search=all: cut at random)"]
    if twice:
        told.append(
            f"{len(twice):,} questions of {chosen[0]} repeat, or belong with, one of {chosen[1]}: left out of the "
            "search"
        )
    if rest := [f"{count:,} of {name}" for name, count in counts.items() if name not in chosen]:
        told.append(f"questions left out: {', '.join(rest)}")
    if without := sum(not query.split for query in dataset.queries):
        told.append(f"{without:,} questions of no split left out")
    return replace(kept, notes=(*dataset.notes, *told), confirming=frozenset(query.id for query in kept.queries) - seen)


def _choose_names(name: str, counts: Mapping[str, int], search: str, confirm: str) -> tuple[str, str] | None:
    """The splits to search and to confirm with; None where the questions are cut at random."""
    for key, given in (("search", search), ("confirm", confirm)):
        if given not in (AUTO, ALL, *counts):
            told = f"its splits are {format_names(counts)}" if counts else "its questions are of no split"
            raise DatasetError(f"dataset.{key}={given}: {name} has no such split; {told}")
    if search == ALL and confirm == AUTO:
        return None
    if ALL in (search, confirm):
        raise DatasetError(
            f"dataset.search={search} dataset.confirm={confirm}: all questions can't be searched and some of them "
            "confirm; dataset.search=all dataset.confirm=auto cuts all of them at random"
        )
    last = CONFIRMING if confirm == AUTO else confirm
    first = next((each for each in SEARCHED if each in counts and each != last), "") if search == AUTO else search
    if first and last in counts and first != last:
        return first, last
    if search == confirm == AUTO:
        return None
    if first == last:
        raise DatasetError(f"dataset.search={search} dataset.confirm={confirm}: what confirms must not be searched")
    missing = "confirm" if first else "search"
    raise DatasetError(
        f"dataset.{missing}: name a split, too; those of {name} are {format_names(counts)} "
        "(or dataset.search=all dataset.confirm=auto: all questions cut at random)"
    )


def split_dataset(
    dataset: Dataset, test_share: float, seed: int, *, crossfits: bool = False
) -> tuple[Dataset, Dataset]:
    """(dev, test): the same documents, the queries by the splits that were chosen, else cut at random but repeatably.

    Each keeps file order; queries that repeat each other are on the same side. With `crossfits` both are all of them.
    Raises DatasetError where either side would be empty, or where the data set has a split that confirms.
    """
    if crossfits:
        if dataset.confirming:
            raise DatasetError(
                f"confirmation.method=crossfit searches all questions, and {dataset.name} keeps some to confirm; "
                "choose confirmation.method=split, or dataset.search=all"
            )
        return dataset, dataset
    test = dataset.confirming or _sample_test(dataset, test_share, seed)
    return _select_queries(dataset, {query.id for query in dataset.queries} - test), _select_queries(dataset, test)


def _sample_test(dataset: Dataset, test_share: float, seed: int) -> AbstractSet[str]:
    groups, count = group_query_ids(dataset), len(dataset.queries)
    random.Random(seed).shuffle(groups)
    wanted = round(test_share * count)
    test: set[str] = set()
    for ids in groups:
        # A group that would make this side too large is passed over; a smaller one behind it may still fit.
        test.update(ids if len(test) + len(ids) <= wanted else ())
    if not test and 0 < wanted < count and len(groups) > 1:
        # Every group is larger than this side should be.
        smallest = min(groups, key=len)
        test.update(smallest)
    if not 0 < len(test) < count:
        different = "" if len(groups) == count else f" ({len(groups)} different ones)"
        raise DatasetError(
            f"{dataset.name}: {count} queries{different} can't be divided with dataset.test_share={test_share}: "
            "both sides need at least one; give more queries or another share"
        )
    return test


def _select_queries(dataset: Dataset, ids: AbstractSet[str]) -> Dataset:
    queries = tuple(query for query in dataset.queries if query.id in ids)
    return replace(dataset, queries=queries, qrels={query.id: dataset.qrels[query.id] for query in queries})


def compute_split_key(dataset: Dataset, test_share: float, seed: int, *, crossfits: bool = False) -> str:
    """The content key of a dataset and its split: that of the dataset, the share and the seed where nothing repeats."""
    if dataset.confirming:
        named = sorted((query.id, query.group) for query in dataset.queries if query.group)
        return compute_key(dataset.fingerprint, sorted(dataset.confirming), *([named] if named else []))
    # Only what repeats, so that every other data set keeps the key it always had.
    groups = [ids for ids in group_query_ids(dataset) if len(ids) > 1]
    cut = ("crossfit",) if crossfits else (test_share, seed)
    return compute_key(dataset.fingerprint, *cut, *([groups] if groups else []))
