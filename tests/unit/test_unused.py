"""Settings that are typed and do nothing are said; those that something reads are not."""

from __future__ import annotations

import pytest

from rag_opt.config import composed
from rag_opt.objective import objective_of
from rag_opt.unused import unused


def told(*words: str, searched: tuple[str, ...] = (), command: str = "study") -> list[str]:
    return unused(words, objective_of(composed(words)), searched, command)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("llm.model=gpt-4o", "llm.model=gpt-4o does nothing here: no stage and no metric asks a language model"),
        ("budget.usd=2", "budget.usd=2 does nothing here: no stage and no metric asks a language model"),
        ("web.url=http://localhost:1/s", "does nothing here: no stage and no metric asks the web"),
        ("judge.repeats=2", "judge.repeats=2 does nothing here: no metric is a judge's"),
        ("question=x", "question=x does nothing here: it is for rag_opt.ask"),
    ],
)
def test_what_nothing_reads_is_said(word: str, line: str) -> None:
    (found,) = told(word)
    assert line in found


@pytest.mark.parametrize(
    "words",
    [
        ["llm.model=gpt-4o", "generator=openai"],
        ["llm.model=gpt-4o", "llm.key=null", "objective=judged", "judge.repeats=2", "budget.tokens=9"],
        ["llm.model=gpt-4o", "query=rewrite", "budget.usd=2"],
        ["web.url=http://localhost:1/s", "retriever=hybrid_web"],
        ["budget.minutes=5", "n_trials=3", "sampler=gp", "seed=1", "name=x"],
    ],
    ids=" ".join,
)
def test_what_something_reads_is_not(words: list[str]) -> None:
    assert told(*words) == []


def test_a_choice_of_the_space_reads_too() -> None:
    assert told("llm.model=x", searched=("generator=extractive", "retriever.fusion=rrf")) != []
    assert told("llm.model=x", searched=("generator=extractive", "generator=openai")) == []


def test_a_single_configuration_has_no_trials() -> None:
    assert told("n_trials=5", command="trial") == ["n_trials=5 does nothing here: it is for rag_opt.study"]
    assert told("split=test", command="trial") == []
    assert told("split=test") == ["split=test does nothing here: it is for rag_opt.trial"]
    assert unused(["question=x"], None, command="ask") == []
