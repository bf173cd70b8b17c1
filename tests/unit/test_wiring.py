"""Nothing that is configured is dropped: what serves nothing is refused when the pipeline is built, with what is meant."""

from __future__ import annotations

from typing import Any

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.socket_types import is_compatible
from rag_opt.config.trial import compose_trial
from rag_opt.errors import ComponentError
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.records.documents import Documents
from rag_opt.records.products import Rankings

HAYSTACKS = "haystack.components.rankers.LostInTheMiddleRanker"
OURS = "tests.unit.ranking_parts"


def parts(*words: str) -> list[str]:
    return [
        part.name
        for part in build_pipeline(
            compose_trial([*words, "embedder=hashing", "trusted_modules=[tests]"]), Resources.from_store(Store())
        ).parts
    ]


def own(stage: str, target: str) -> str:
    return f"+{stage}.components.mine._target_={target}"


REFUSED = {
    "a stock component as a generator": (
        [own("generator", HAYSTACKS)],
        r"^generator: what serves there gives an answer.*mine gives mine.documents \(list",
    ),
    "one that takes whatever is called documents": (
        [own("context", f"{OURS}.ReadsAnything")],
        "^mine: it takes 'documents' as typing.Any, and that is the whole corpus",
    ),
    "a misspelt output": (
        [own("reranker", f"{OURS}.MisspeltOutput")],
        "^mine: it gives rankings, which nothing here takes; did you mean 'ranking'",
    ),
    "a misspelt output of a retriever's": ([own("retriever", f"{OURS}.MisspeltOutput")], "did you mean 'ranking'"),
    "a misspelt input": (
        [own("reranker", f"{OURS}.MisspeltInput")],
        "^mine: nothing before it gives 'rankings'.*did you mean 'ranking'",
    ),
    "a misspelt input that is optional": (
        [own("reranker", f"{OURS}.MisspeltOption")],
        "^fusion: it gives ranking, which nothing here takes: mine gives another and takes chunks; have it take this",
    ),
    "a result of another kind": (
        [own("reranker", f"{OURS}.GivesTexts")],
        r"^mine: it gives 'ranking' as list\[str\], not as rag_opt.records.products.Rankings",
    ),
    "a part of a stage that serves": ([own("embedder", f"{OURS}.Whitening")], "did you mean 'vectors'"),
    "a query stage that no retriever asks for": (["query=rm3", "retriever=dense"], "a retriever that searches for it"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_serves_nothing_is_refused(case: str) -> None:
    words, message = REFUSED[case]
    with pytest.raises(ComponentError, match=message):
        parts(*words)


def test_what_every_configuration_has_may_rest() -> None:
    assert parts("retriever=bm25") == ["splitter", "bm25_indexer", "bm25_retriever", "fusion", "extractive"]
    assert "vector_indexer" not in parts("retriever=bm25", "reranker=mmr")
    assert parts("retriever=none") == ["splitter", "nothing", "extractive"]
    assert "mine" not in parts("retriever=bm25", own("embedder", f"{OURS}.Whitening"))
    assert "mine" in parts(own("reranker", f"{OURS}.Backwards"))


@pytest.mark.parametrize(
    ("takes", "gives", "possible"),
    [
        (Documents, Documents, True),
        (Documents | None, Documents, True),
        (Any, Documents, True),
        (list[str], Documents, False),
        (list[str] | None, Documents, False),
        (Rankings, list[str], False),
        (Rankings, Rankings | None, True),
        (Rankings, Any, True),
        (object, Documents, True),
    ],
)
def test_what_can_feed_an_input(takes: Any, gives: Any, possible: bool) -> None:
    assert is_compatible(takes, gives) is possible


@pytest.mark.parametrize("name", ["WordSplitter", "SentenceSplitter"])
def test_a_splitter_of_words_needs_no_encoder(name: str) -> None:
    """Files of one's own may leave out what the constructor does without, but not what it needs."""
    mine = ["splitter=none", f"splitter.components.splitter._target_=rag_opt.components.splitters.chunkers.{name}"]
    mine += ["+splitter.components.splitter.chunk_size=60"]
    mine += ["+splitter.components.splitter.overlap=0"] if name == "SentenceSplitter" else []
    assert "splitter" in parts(*mine)
    with pytest.raises(ComponentError, match="splitter: its encoder is None"):
        parts("splitter=semantic", "splitter.components.splitter.encoder=null")
