"""Settings put back to the baseline's, one at a time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rag_opt.config.sweep_grammar import parse_space
from rag_opt.study.ablation import put_back

SPACE = parse_space(
    {
        "splitter.chunk_size": "choice(25, 50, 100)",
        "splitter.overlap": {"values": "range(0, 61, 20)", "below": "splitter.chunk_size"},
        "retriever": "choice(bm25, dense, hybrid)",
        "retriever.k1": {"values": "interval(0.4, 3.0)", "when": {"retriever": ["bm25", "hybrid"]}},
        "retriever.fusion": {"values": "choice(weighted, rrf)", "when": {"retriever": "hybrid"}},
        "retriever.hybrid_weight": {
            "values": "interval(0.0, 1.0)",
            "when": {"retriever": "hybrid", "retriever.fusion": "weighted"},
        },
    }
)


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    size = draw(st.sampled_from([25, 50, 100]))
    values = {
        "splitter.chunk_size": size,
        "splitter.overlap": draw(st.sampled_from([n for n in (0, 20, 40, 60) if n < size])),
        "retriever": draw(st.sampled_from(["bm25", "dense", "hybrid"])),
        "retriever.k1": draw(st.sampled_from([0.5, 1.2, 2.0])),
        "retriever.fusion": draw(st.sampled_from(["weighted", "rrf"])),
        "retriever.hybrid_weight": draw(st.sampled_from([0.2, 0.5])),
    }
    return SPACE.select_active(values)


@given(configurations(), configurations())
def test_each_setting_that_differs_is_put_back_alone(chosen: dict[str, Any], begun: dict[str, Any]) -> None:
    found = dict(put_back(SPACE, chosen, begun))
    differing = {name for name in chosen if name in begun and begun[name] != chosen[name]}
    assert set(found) <= differing
    for name, values in found.items():
        assert SPACE.find_invalid(values) is None
        assert values[name] == begun[name]
        for other, value in values.items():
            # What both have stays as it was chosen; what comes to exist is as it was in the beginning.
            assert value == (begun[name] if other == name else chosen.get(other, begun.get(other)))
    # An overlap alone may be impossible with the other chunks.
    assert differing - set(found) <= {"splitter.overlap", "splitter.chunk_size"}


def test_what_hangs_on_a_choice_goes_and_comes_with_it() -> None:
    hybrid = {
        "splitter.chunk_size": 100,
        "splitter.overlap": 0,
        "retriever": "hybrid",
        "retriever.k1": 1.2,
        "retriever.fusion": "weighted",
        "retriever.hybrid_weight": 0.5,
    }
    dense = {"splitter.chunk_size": 100, "splitter.overlap": 0, "retriever": "dense"}
    assert dict(put_back(SPACE, hybrid, dense)) == {"retriever": dense}
    assert dict(put_back(SPACE, dense, hybrid)) == {"retriever": hybrid}
    assert dict(put_back(SPACE, hybrid, {**hybrid, "retriever.hybrid_weight": 0.2})) == {
        "retriever.hybrid_weight": {**hybrid, "retriever.hybrid_weight": 0.2}
    }


def test_what_can_not_be_put_back_alone_is_left_out() -> None:
    begun = {"splitter.chunk_size": 25, "splitter.overlap": 0, "retriever": "dense"}
    chosen = {"splitter.chunk_size": 100, "splitter.overlap": 60, "retriever": "dense"}
    assert dict(put_back(SPACE, chosen, begun)) == {"splitter.overlap": {**chosen, "splitter.overlap": 0}}
