"""What stands in a dataset more than once: questions asked again, documents under two ids.

Of equal questions on both sides of a split the search has seen what is to confirm it, and n copies are one observation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.console.terminal import sanitize_line
from rag_opt.text.tokenization import fold_text, split_words

if TYPE_CHECKING:
    from rag_opt.records.documents import Dataset, Ints, Qrels, Query

NEAR = 0.8
"""The share of all their words that two questions of the same gold have in common (Jaccard) and count as one."""

COMMON = 200
"""What more questions share says nothing of any two of them; and so the work grows with the number of questions."""


def group_repeats(queries: Sequence[Query], qrels: Qrels) -> Ints:
    """For each query the row of the first that it repeats or shares a group with, its own where there is none; int32.

    Equal are questions of the same words in the same order (case, punctuation and widths apart); near-equal are those
    with the Jaccard index of their words at `NEAR` or above that share a relevant document or an answer.
    """
    texts, gold = tuple(query.text for query in queries), tuple(_collect_gold(query, qrels) for query in queries)
    return np.array(_join_groups(_find_leaders(texts, gold), [query.group for query in queries]), np.int32)


@lru_cache(maxsize=8)
def _find_leaders(texts: tuple[str, ...], gold: tuple[frozenset[str], ...]) -> tuple[int, ...]:
    # A study asks several times for the same questions.
    asked = [_split_words(text) for text in texts]
    first: dict[tuple[str, ...], int] = {}
    leaders = [first.setdefault(each, row) for row, each in enumerate(asked)]
    for one, other in _iterate_near_pairs([frozenset(each) for each in asked], gold, sorted(first.values())):
        ends = _find_leader(leaders, one), _find_leader(leaders, other)
        # The first in the file leads, in whatever order the pairs come.
        leaders[max(ends)] = min(ends)
    return tuple(_find_leader(leaders, row) for row in range(len(texts)))


def _join_groups(leaders: Sequence[int], groups: Sequence[str]) -> list[int]:
    """The leaders where queries of one named group are one as well."""
    joined, first = list(leaders), dict[str, int]()
    for row, group in enumerate(groups):
        if group:
            ends = _find_leader(joined, row), _find_leader(joined, first.setdefault(group, row))
            joined[max(ends)] = min(ends)
    return [_find_leader(joined, row) for row in range(len(joined))]


def _find_leader(leaders: list[int], row: int) -> int:
    while leaders[row] != row:
        row = leaders[row]
    return row


def _split_words(text: str) -> tuple[str, ...]:
    # A question of marks alone has no words, but two different ones are not the same question.
    return tuple(split_words(text)) or (fold_text(text).strip(),)


def _iterate_near_pairs(
    asked: Sequence[frozenset[str]], gold: Sequence[frozenset[str]], rows: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """The pairs of near-equal questions among these rows.

    Two of such a similarity share one of their rarest words: prefix filtering (Bayardo, Ma and Srikant 2007).
    """
    frequency: dict[str, int] = defaultdict(int)
    for row in rows:
        for word in asked[row]:
            frequency[word] += 1
    blocks: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        # One order of words for all questions, ties by their letters: prefix filtering is exact only then.
        rarest = sorted(asked[row], key=lambda word: (frequency[word], word))
        # Similar sets share at least NEAR of their words, so they can't differ in all of these.
        for word in rarest[: len(rarest) - ceil(NEAR * len(rarest)) + 1]:
            # By gold, too: thousands of questions from one template share their words, but not what answers them.
            for each in gold[row]:
                blocks[word, each].append(row)
    for block in blocks.values():
        for one, other in combinations(block, 2) if len(block) <= COMMON else ():
            if len(asked[one] & asked[other]) >= NEAR * len(asked[one] | asked[other]):
                # A pair may come from several blocks; to join it again changes nothing.
                yield one, other


def _collect_gold(query: Query, qrels: Qrels) -> frozenset[str]:
    # The prefixes keep an id and an answer that read alike apart.
    relevant = {f"document {document}" for document, grade in qrels.get(query.id, {}).items() if grade > 0}
    return frozenset(relevant | {f"answer {' '.join(_split_words(answer))}" for answer in query.answers})


def group_query_ids(dataset: Dataset) -> list[list[str]]:
    """The ids of questions that are one, sorted, a list for each; every question is in one of them."""
    found: dict[int, list[str]] = defaultdict(list)
    for query, leader in zip(dataset.queries, group_repeats(dataset.queries, dataset.qrels).tolist(), strict=True):
        found[leader].append(query.id)
    # By their ids: a seed then divides the questions alike in whatever order the file has them.
    return sorted(sorted(ids) for ids in found.values())


def format_repeats(dataset: Dataset) -> list[str]:
    """A line each about questions that are documents, repeated questions and documents; [] where there are none."""
    return [*_format_identical(dataset), *_format_questions(dataset), *_format_documents(dataset)]


def _format_identical(dataset: Dataset) -> Iterator[str]:
    count = len(dataset.queries)
    if own := sum(bool(query.own) for query in dataset.queries):
        yield (
            f"{own:,} of {count:,} questions have a document of their own id: it is no hit of theirs, as BEIR counts "
            "(dataset.ignore_identical_ids=false: it is)"
        )
        return
    asked = [_normalize_text(query.text) for query in dataset.queries]
    # A document much longer than every question is none of them, and need not be folded.
    longest = 2 * max(map(len, asked))
    texts = {_normalize_text(document.text) for document in dataset.documents if len(document.text) <= longest}
    if found := sum(each in texts for each in asked):
        yield (
            f"{found:,} of {count:,} questions find themselves first: they are documents, word for word "
            "(dataset.ignore_identical_ids=true, where both have one id: that is no hit)"
        )


def _normalize_text(text: str) -> str:
    return " ".join(text.split()).casefold()


def group_by_document(dataset: Dataset) -> Dataset:
    """The dataset with the questions of one document as one group, where they name none: that of the greatest grade."""
    queries = (
        replace(query, group=query.group or _name_document(dataset.qrels.get(query.id, {})))
        for query in dataset.queries
    )
    return replace(dataset, queries=tuple(queries))


def _name_document(grades: Mapping[str, int]) -> str:
    relevant = [(-grade, document) for document, grade in grades.items() if grade > 0]
    # Of equal grades the first by its id, so that the order of the qrels is no matter.
    return f"document {min(relevant)[1]}" if relevant else ""


def _format_questions(dataset: Dataset) -> Iterator[str]:
    # Without the groups that were asked for: they are no repeats.
    alone = replace(dataset, queries=tuple(replace(query, group="") for query in dataset.queries))
    count, groups = len(dataset.queries), group_query_ids(alone)
    if len(groups) < count:
        example = " and ".join(f"'{sanitize_line(each)}'" for each in max(groups, key=len)[:2])
        alike = f"equal words, or {100 * NEAR:.0f} % of them and the same gold; such as {example}"
        yield (
            f"{count:,} questions are {len(groups):,} different ones ({alike}): those that are one are kept on one "
            "side of the split, and count once in the intervals"
        )


def _format_documents(dataset: Dataset) -> Iterator[str]:
    copies: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for document in dataset.documents:
        # Without the id; of a file its bytes.
        copies[tuple(" ".join(each.split()) for each in document.content[1:])].append(document.id)
    groups = [ids for ids in copies.values() if len(ids) > 1]
    if not groups:
        return
    example = " and ".join(f"'{sanitize_line(each)}'" for each in groups[0][:2])
    told = f"documents equal to another under its own id: {sum(map(len, groups)) - len(groups):,}, such as {example}"
    group_of = {each: number for number, ids in enumerate(groups) for each in ids}
    half = sum(_is_half_judged(grades, group_of, groups) for grades in dataset.qrels.values())
    yield f"{told}; for {half:,} questions only some of the copies count as found" if half else told


def _is_half_judged(grades: Mapping[str, int], group_of: dict[str, int], groups: list[list[str]]) -> bool:
    """Whether of a relevant document's copies some are not relevant."""
    relevant = {each for each, grade in grades.items() if grade > 0}
    return any(not relevant.issuperset(groups[group_of[each]]) for each in relevant if each in group_of)
