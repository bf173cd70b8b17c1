"""What people asked a served model, and said is right: questions for the study that tunes it again.

Read from MLflow's traces each time: what was deleted there is in no data set that is made afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rag_opt.production.traces import VERSION, fetch_trace, find_traces, get_question
from rag_opt.questions.flags import holds
from rag_opt.records.documents import Query

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Trace

    from rag_opt.production.registry import Registry

DOCUMENTS, ANSWER = "expected_retrieved_context", "expected_response"
"""What people note on a trace, as MLflow calls it: documents that should be found, the answer that should be given."""

MASK = re.compile(r"\*{3}|█|[\[(<{](?:REDACTED|MASKED|REMOVED|HIDDEN)\b|<[A-Z][A-Z_]{2,}>")
"""What redaction leaves in a text: our own ***, bars, [REDACTED], and Presidio's <PERSON>."""

MASKED, WRONG, UNTOLD, GONE = (
    "have something masked",
    "were marked wrong, and nobody has noted what would be right",
    "nobody has said anything about",
    "have their answer in no document of the model",
)
"""Why a question is left out."""

LATE, EARLY = 60 * 86_400_000, 300_000
"""Milliseconds after which nobody says any more what was right; and so many may lie between what is said and MLflow's
having it: such words are looked for the next time, too."""

THUMBS = "thumbs"

Asked = tuple[Query, tuple[str, ...]]
"""A question by its trace's id, with the documents that are relevant to it."""


def read_asked(
    registry: Registry, model: str, since: int, until: int, documents: Iterable[str]
) -> tuple[list[Asked], Counter[str]]:
    """(questions with what is relevant to them, why how many others are left out), by what people said in a time.

    From `since` to `until`, in ms; the oldest question first. Relevant is what people have noted; else, where a thumb
    said that the answer was right, the first source that holds it, or the first one. `documents` are the ids that
    there are.
    """
    known, left = frozenset(documents), Counter[str]()
    wanted = f"timestamp_ms >= {max(0, since - LATE)} and timestamp_ms < {until}"
    found = list[tuple[int, Asked]]()
    # Spans are long, and most traces carry no word of anybody: of these only the head is read.
    for head in find_traces(registry, model, wanted, spans=False):
        # Somebody else's, or one that a kill has left half written.
        if VERSION not in head.info.tags:
            continue
        told = max((each.last_update_time_ms or 0 for each in head.info.assessments if _is_word(each)), default=None)
        if told is None:
            # The round before has counted the older ones.
            left[UNTOLD] += head.info.request_time >= since
            continue
        if not since - EARLY <= told < until:
            continue
        trace = fetch_trace(registry, head.info.trace_id)
        # It may have been deleted since its head was read.
        if trace is not None and (asked := _read_question(trace, known, left)) is not None:
            found.append((trace.info.request_time, asked))
    return [asked for _, asked in sorted(found, key=lambda row: row[0])], left


def read_again(registry: Registry, names: Iterable[str], documents: Iterable[str]) -> list[Asked]:
    """The questions of these traces as they are now: of those that were deleted, masked or taken back none."""
    known, left = frozenset(documents), Counter[str]()
    traces = (fetch_trace(registry, name) for name in names)
    found = (_read_question(trace, known, left) for trace in traces if trace is not None)
    return [asked for asked in found if asked is not None]


def _read_question(trace: Trace, documents: frozenset[str], left: Counter[str]) -> Asked | None:
    text = get_question(trace)
    if not text or MASK.search(text):
        left[MASKED] += bool(text)
        return None
    expected = {each.name: each.expectation.value for each in trace.info.assessments if each.expectation is not None}
    answers = tuple(_list_texts(expected.get(ANSWER)))
    answers = tuple(each for each in answers if not MASK.search(each))
    thumbs = _count_thumbs(trace)
    relevant = tuple(_list_texts(expected.get(DOCUMENTS)))
    if not relevant and (thumbs > 0 or answers):
        relevant = _find_source(trace, answers, right=thumbs > 0)
    kept = tuple(name for name in relevant if name in documents)
    if relevant and not kept:
        left[GONE] += 1
        return None
    if not kept and not answers:
        left[WRONG if thumbs < 0 else UNTOLD] += 1
        return None
    return Query(trace.info.trace_id, text, answers), kept


def _is_word(assessment: Assessment) -> bool:
    """Whether people said it: a judge's grade says nothing of what would be right."""
    return assessment.expectation is not None or str(assessment.source.source_type) == "HUMAN"


def _count_thumbs(trace: Trace) -> int:
    """How many more people said that the answer was right than that it was wrong; each one's last word counts."""
    last = {
        each.source.source_id: each.feedback.value
        for each in sorted(trace.info.assessments, key=lambda row: row.create_time_ms or 0)
        if each.feedback is not None and each.name == THUMBS and _is_word(each)
    }
    words = [str(value).lower() for value in last.values()]
    return sum(word in ("true", "yes") for word in words) - sum(word in ("false", "no") for word in words)


def _find_source(trace: Trace, answers: tuple[str, ...], *, right: bool) -> tuple[str, ...]:
    """The first source that holds what is right; without one the first source of an answer that was right."""
    rows = next((span.outputs for span in trace.data.spans if span.span_type == "RETRIEVER"), None) or []
    # There is one: the question was read from it.
    root = next(span for span in trace.data.spans if span.parent_id is None)
    given = root.outputs.get("answer") if isinstance(root.outputs, Mapping) else ""
    said = answers or ((str(given),) if right and given else ())
    holding = (row for row in rows if holds(str(row["page_content"]), said))
    first = next(holding, rows[0] if rows and right else None)
    return () if first is None else (str(first["metadata"]["doc_uri"]),)


def _list_texts(given: Any) -> Iterator[str]:
    """The texts of a note: one, several, or MLflow's [{"doc_uri": …}, …]."""
    for each in given if isinstance(given, list | tuple) else [given]:
        text = each.get("doc_uri") if isinstance(each, Mapping) else each
        if isinstance(text, str) and text.strip():
            yield text.strip()
