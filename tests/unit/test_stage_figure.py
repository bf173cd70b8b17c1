"""The figure of what each stage costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rag_opt.reporting.figures import plot_stages


@pytest.mark.parametrize(("least", "axis"), [(0.0004, ("log", 1)), (0.03, (None, None))])
def test_the_cost_by_stage_has_labels_that_fit_a_phone(least: float, axis: tuple[object, object]) -> None:
    """Powers of 10, of which a factor of 10 holds at least one; less needs no logarithm."""
    figure = plot_stages(SimpleNamespace(stages={"trial 3": {"indexing": 0.05, "retriever": least, "none": 0.0}}), None)
    assert (figure.layout.xaxis.type, figure.layout.xaxis.dtick) == axis
    assert list(figure.data[0].y) == ["indexing", "retriever"]
