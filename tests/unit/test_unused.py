"""Settings that are typed and do nothing are said; those that something reads are not."""

from __future__ import annotations

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compose_trial
from rag_opt.evaluation.objective import build_objective
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.evaluation.unused import find_unused


def told(*words: str, searched: tuple[str, ...] = (), command: str = "study") -> list[str]:
    pipelines = [
        build_pipeline(compose_trial([*words, *more]), Resources.from_store(Store()))
        for more in ([], *([choice] for choice in searched))
    ]
    return find_unused(words, build_objective(compose_config(words)), pipelines, searched, command)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("llm.model=gpt-4o", "llm.model=gpt-4o does nothing here: no stage and no metric asks a language model"),
        ("budget.usd=2", "budget.usd=2 does nothing here: no stage and no metric asks a language model"),
        ("web.url=http://localhost:1/s", "does nothing here: no stage and no metric asks the web"),
        ("judge.repeats=2", "judge.repeats=2 does nothing here: no metric is a judge's"),
        ("index=chroma", "index=chroma does nothing here: nothing takes what index gives (retriever=bm25)"),
        ("embedder=hub", "embedder=hub does nothing here: nothing takes what embedder gives (retriever=bm25)"),
        ("embedder.encoder.precision=float32", "nothing takes what embedder gives"),
        ("question=x", "question=x does nothing here: it is for rag_opt.ask"),
    ],
)
def test_what_nothing_reads_is_said(word: str, line: str) -> None:
    (found,) = told("retriever=bm25", word)
    assert line in found


def test_a_stage_does_nothing_beside_a_pipeline_that_is_brought_whole() -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.answer", "trusted_modules=[tests]"]
    assert told(*words, "budget.tokens=100") == []
    (line,) = told(*words, "retriever=bm25")
    assert line == "retriever=bm25 does nothing here: pipeline=function is no pipeline of stages"


@pytest.mark.parametrize(
    "words",
    [
        ["llm.model=gpt-4o", "llm.key=null", "generator=openai"],
        ["llm.model=gpt-4o", "llm.key=null", "objective=judged", "judge.repeats=2", "budget.tokens=9"],
        ["llm.model=gpt-4o", "llm.key=null", "query=rewrite", "budget.usd=2"],
        ["web.url=http://localhost:1/s", "retriever=hybrid_web"],
        ["retriever=dense", "embedder=hashing", "index=chroma", "splitter=none"],
        ["retriever=bm25", "embedder=minilm", "reranker=maxsim"],
        ["retriever=bm25", "embedder=hashing", "splitter=semantic"],
        ["retriever=bm25", "embedder=minilm", "splitter=tokens"],
        ["budget.minutes=5", "n_trials=3", "sampler=gp", "seed=1", "name=x"],
    ],
    ids=" ".join,
)
def test_what_something_reads_is_not(words: list[str]) -> None:
    assert told(*words) == []


def test_a_choice_of_the_space_reads_too() -> None:
    assert told("llm.model=x", searched=("generator=extractive", "retriever.fusion=rrf")) != []
    assert told("llm.model=x", "llm.key=null", searched=("generator=extractive", "generator=openai")) == []


def test_a_choice_of_the_space_takes_what_a_stage_gives() -> None:
    assert told("retriever=bm25", "embedder=hashing", searched=("retriever=dense",)) == []
    assert told("retriever=bm25", "embedder=hashing", searched=("generator=extractive",)) != []


def test_a_single_configuration_has_no_trials() -> None:
    assert told("n_trials=5", command="trial") == ["n_trials=5 does nothing here: it is for rag_opt.study"]
    assert told("split=test", command="trial") == []
    assert told("split=test") == ["split=test does nothing here: it is for rag_opt.trial"]
    assert (
        find_unused(
            ["question=x"], None, [build_pipeline(compose_trial([]), Resources.from_store(Store()))], command="ask"
        )
        == []
    )
