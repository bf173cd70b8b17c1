"""Answers whose grade is known by how they were made, of the packaged questions: what a judge is measured with.

A right answer is the gold one, a wrong one another question's. Either is also given at length, with a quotation and
words that say nothing, since many judges take a long answer for a better one (Zheng et al. 2023, arXiv 2306.05685).
What documents bear out is asked with the right one first and last among others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_opt.datasets.python_docs import read_questions
from rag_opt.metrics.aspects import BEST, FIELDS, WORST, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

RIGHT, WRONG, EMPTY = "right", "wrong", "empty"
LONG = ", at length"
FIRST, LAST = ", read first", ", read last"
DISTRACTORS = 3
"""Documents of other questions beside the right one."""

FILLER = (
    "{answer} The documentation puts it like this: “{quote}” So that is the answer to what was asked, given here at "
    "some length, together with the passage that it rests on, for whoever would rather read it there."
)
"""What makes an answer long: it claims nothing beside the answer and the quotation."""


@dataclass(frozen=True)
class Labelled:
    """What a judge is shown of which question, and the grade that it should give (None: compared with another's)."""

    kind: str
    truth: int | None
    shown: Shown
    question: int


def build_labelled(aspect: str, count: int) -> list[Labelled]:
    """The labelled cases of one aspect, of so many questions spread over the packaged ones; [] for 0."""
    rows = read_questions()
    count = min(count, len(rows))
    step = len(rows) / max(1, count)
    chosen = [int(place * step) for place in range(count)]
    build = _build_answers if "answer" in FIELDS[aspect] else _build_readings
    return [case for number, place in enumerate(chosen) for case in build(aspect, rows, place, number)]


def _build_answers(aspect: str, rows: Sequence[Mapping[str, Any]], place: int, number: int) -> Iterator[Labelled]:
    """Right and wrong answers to one question, short and at length, and none."""
    # From the other half: neighbours are often about the same topic.
    row, other = rows[place], rows[(place + len(rows) // 2) % len(rows)]
    said = {
        (RIGHT, BEST): row["answer"],
        (WRONG, WORST): other["answer"],
        (RIGHT + LONG, BEST): _lengthen(row),
        (WRONG + LONG, WORST): _lengthen(other),
        (EMPTY, WORST): "",
    }
    gold = [row["evidence"][0]["quote"]]
    for (kind, truth), answer in said.items():
        yield Labelled(kind, truth, Shown(row["question"], (row["answer"],), answer, gold), number)
    if "documents" in FIELDS[aspect]:
        yield from _build_orders(rows, place, number, row["answer"])


def _build_readings(aspect: str, rows: Sequence[Mapping[str, Any]], place: int, number: int) -> Iterator[Labelled]:
    """The right document alone, wrong ones alone, and the right one among those."""
    # Given as to `_build_answers`, in whose place it may stand.
    del aspect
    row, others = rows[place], _find_others(rows, place)
    gold = [row["evidence"][0]["quote"]]
    yield Labelled(RIGHT, BEST, Shown(row["question"], (), None, gold), number)
    yield Labelled(WRONG, WORST, Shown(row["question"], (), None, others), number)
    yield from _build_orders(rows, place, number, None)


def _build_orders(rows: Sequence[Mapping[str, Any]], place: int, number: int, answer: str | None) -> Iterator[Labelled]:
    """The right document first and last among others: a grade that depends on that is no grade of what is there."""
    row, others = rows[place], _find_others(rows, place)
    gold = row["evidence"][0]["quote"]
    for kind, documents in ((FIRST, [gold, *others]), (LAST, [*others, gold])):
        yield Labelled(RIGHT + kind, None, Shown(row["question"], (row["answer"],), answer, documents), number)


def _find_others(rows: Sequence[Mapping[str, Any]], place: int) -> list[str]:
    # As far from each other as they can be: neighbours are often about the same topic.
    step = len(rows) // (DISTRACTORS + 1)
    return [rows[(place + each * step) % len(rows)]["evidence"][0]["quote"] for each in range(1, DISTRACTORS + 1)]


def _lengthen(row: Mapping[str, Any]) -> str:
    return FILLER.format(answer=row["answer"], quote=row["evidence"][0]["quote"])
