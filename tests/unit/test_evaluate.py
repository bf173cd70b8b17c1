"""A stage that did not do its work is not what the configuration says."""

from __future__ import annotations

import numpy as np
import pytest

from rag_opt.evaluation.coverage import check_served, compute_served
from rag_opt.metrics.catalogue import BatchResult
from rag_opt.records.products import Usage
from rag_opt.records.scores import Evaluation


def observed(**spent: tuple[list[int], list[int]]) -> BatchResult:
    """A batch whose stages asked for so much, query by query, and lost so much of it."""
    none = np.zeros(2, np.int32)
    usage = {
        stage: Usage(stage, none, none, none, none.astype(float), none, np.array(asked), np.array(lost))
        for stage, (asked, lost) in spent.items()
    }
    nothing = dict.fromkeys(("queries", "qrels", "rankings", "context", "answers", "tokens", "seconds", "resources"))
    return BatchResult(**nothing, encode=None, split=None, usage=usage)


def test_the_share_of_its_work_that_a_stage_got_done_is_over_all_batches() -> None:
    """Reranker: 3 + 2 of 4 + 6 windows came to nothing; rewriting: nothing of 2 was lost."""
    batches = [
        observed(reranker=([1, 3], [1, 2]), query=([1, 1], [0, 0])),
        observed(reranker=([2, 4], [0, 2]), generator=([0, 0], [0, 0])),
    ]
    assert compute_served(batches) == {"reranker": pytest.approx(0.5), "query": 1.0, "generator": 1.0}


@pytest.mark.parametrize(("share", "fails"), [(0.0, True), (0.949, True), (0.95, False), (1.0, False)])
def test_a_stage_that_did_too_little_of_its_work_was_not_measured(share: float, fails: bool) -> None:
    found = Evaluation((), {}, {}, {}, served={"query": 1.0, "reranker": share})
    if not fails:
        check_served(found, 0.95)
        return
    with pytest.raises(ValueError, match=r"reranker got \d+% of what it asked its model for .* asks for 95%"):
        check_served(found, 0.95)
