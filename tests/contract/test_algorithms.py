"""What is kept is found by what computed it: every component has a name for that which is its own, and stays."""

from __future__ import annotations

import re

from rag_opt.components.stage import Stage
from rag_opt.config.compose import FOLDER
from rag_opt.config.trust import import_target
from rag_opt.records.keys import compute_key

TARGET = re.compile(r"_target_: *(rag_opt\.[\w.]+)")

KNOWN = {
    "Assembler": "205fa777",
    "BM25Indexer": "f288d86f",
    "BM25Retriever": "92ac21f5",
    "ChromaIndexer": "63341284",
    "ChunkEmbedder": "cb53e22f",
    "CrossEncoder": "50d5ce68",
    "DenseRetriever": "6147c1fe",
    "ExactIndexer": "bcba740a",
    "Extractive": "36d46754",
    "Fusion": "e9142d64",
    "Hashing": "0ae4c6f8",
    "HyDE": "507c2aee",
    "ListwiseReranker": "1752d067",
    "LocalChat": "66ba7036",
    "MMR": "f5ee4b4f",
    "MaxSim": "fafdfc62",
    "MiniLM": "0535f261",
    "MultiQuery": "89b0ecf4",
    "NoRetriever": "666aedd2",
    "NoSplitter": "a1b63604",
    "OpenAIChat": "6a6da8d4",
    "PairReranker": "f850a04d",
    "PointwiseReranker": "7b325d54",
    "QueryEmbedder": "748984be",
    "RM3": "5dcbc4a0",
    "RecursiveSplitter": "d550e753",
    "Rewrite": "81f58741",
    "SearchService": "1f8ed1e4",
    "SemanticSplitter": "0f3eae1b",
    "SentenceSplitter": "e15eb187",
    "SentenceTransformerEncoder": "fb54610b",
    "SlidingWindowSplitter": "d70f4722",
    "Static": "d99014f9",
    "Synthesis": "416963c9",
    "WebRetriever": "7fa16aed",
    "WebRewrite": "355dbf88",
    "WordSplitter": "b1fde98d",
}
"""The beginnings of the keys of all algorithms' names (so that no search and replace over the sources changes both).

What stands here no longer is computed no longer: every store, and every study that chose it, begins anew. So a name
goes only when a component's products change for the same parameters. A new component needs no line.
"""


def components() -> list[type[Stage]]:
    """Our classes that any file under conf/ names and whose products are kept."""
    found = {
        import_target(target) for path in FOLDER.rglob("*.yaml") for target in TARGET.findall(path.read_text("utf-8"))
    }
    return sorted((kind for kind in found if isinstance(kind, type) and issubclass(kind, Stage)), key=str)


def test_every_component_names_what_it_computes_itself_and_no_two_the_same() -> None:
    kinds = components()
    assert len(kinds) >= len(KNOWN)
    assert [kind for kind in kinds if not isinstance(vars(kind).get("algorithm"), str)] == []
    assert len({kind.algorithm for kind in kinds}) == len(kinds)


def test_what_is_kept_by_a_known_name_is_still_found() -> None:
    now = {compute_key(kind.algorithm)[:8] for kind in components()}
    assert [kind for kind, key in KNOWN.items() if key not in now] == []
