"""Evidence measures against sets of characters, the definition itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.metrics.evidence import MEASURES, Span, parse_evidence_name, score_evidence
from rag_opt.records.documents import Evidence

DOCUMENTS = st.sampled_from(["a", "b"])
RANGES = st.tuples(DOCUMENTS, st.integers(0, 30), st.integers(1, 12))


@given(st.lists(RANGES, max_size=6), st.lists(RANGES, min_size=1, max_size=3), st.integers(1, 5))
def test_ranges_agree_with_sets_of_characters(chunks, gold, k: int) -> None:
    spans = [Span(document, start, start + length) for document, start, length in chunks]
    evidence = [Evidence(document, start, start + length) for document, start, length in gold]
    retrieved = [(s.document_id, i) for s in spans[:k] for i in range(s.start, s.end)]
    wanted = {(e.document_id, i) for e in evidence for i in range(e.start, e.end)}
    both = len(wanted & set(retrieved))
    whole = {
        "evidence_recall": len(wanted),
        "evidence_precision": len(retrieved),
        "evidence_iou": len(wanted) + len(retrieved) - both,
    }
    for measure in MEASURES:
        expected = both / whole[measure] if whole[measure] else 0.0
        assert score_evidence(measure, k, [spans], [evidence]).tolist() == [pytest.approx(expected)]


def test_how_the_text_is_cut_does_not_change_what_was_found() -> None:
    whole = [Span("a", 0, 100)]
    halves = [Span("a", 50, 100), Span("a", 0, 50)]
    evidence = [[Evidence("a", 40, 60)]]
    for measure in MEASURES:
        assert score_evidence(measure, 2, [whole], evidence) == score_evidence(measure, 2, [halves], evidence)


def test_text_that_is_retrieved_twice_costs_twice() -> None:
    evidence = [[Evidence("a", 0, 10)]]
    assert score_evidence("evidence_precision", 5, [[Span("a", 0, 10), Span("a", 0, 10)]], evidence).tolist() == [0.5]
    assert score_evidence("evidence_recall", 5, [[Span("a", 0, 10), Span("a", 0, 10)]], evidence).tolist() == [1.0]


def test_nothing_retrieved_is_0_and_no_evidence_is_not_measurable() -> None:
    for measure in MEASURES:
        found = score_evidence(measure, 3, [[], [Span("a", 0, 5)]], [[Evidence("a", 0, 5)], []])
        assert found[0] == 0.0
        assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("evidence_recall@5", ("evidence_recall", 5)),
        ("evidence_iou@10", ("evidence_iou", 10)),
        ("evidence_recall@0", None),
        ("evidence_recall", None),
        ("recall@5", None),
    ],
)
def test_names(name: str, found) -> None:
    assert parse_evidence_name(name) == found
