"""Records every configuration of conf/search_space/grid.yaml on five collections, as tables of numbers.

python studies/samplers/record.py --data FOLDER [--work FOLDER] [NAME ...]

FOLDER has one folder a collection in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv); python_docs needs none. Of
a large collection a part is taken: documents at random, then questions that these answer.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from pathlib import Path

from rag_opt.simulation.tables import load_table, write_parquet

HERE = Path(__file__).parent
PARTS: dict[str, tuple[int | None, int | None]] = {
    "python_docs": (None, None),
    "mlflow_docs": (None, None),
    "msmarco_qa": (None, 200),
    "nfcorpus": (1500, 150),
    "squad_articles": (40, 200),
}
"""How many documents and questions are taken; None: all."""

WORDS = (
    *("pruner=none", "tracking=none", "generator=none", "objective=ndcg", "threads=1"),
    *("dataset.test_share=0.1", "evaluation.batches=1", "retriever.depth=30"),
)
GRID = ("search_space=grid", "sampler=brute_force", "n_trials=1000")
CONTINUOUS = ("search_space=retrieval", "sampler=random", "n_trials=400")
MIXED = ("python_docs", "mlflow_docs", "nfcorpus")
"""Where a space with real numbers is recorded as well, at random."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PARTS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("grids"))
    given = parser.parse_args()
    for name in given.names:
        words = list(WORDS)
        if name != "python_docs":
            folder = part(given.data / name, given.work / "data" / name, *PARTS[name])
            words += ["dataset=beir", f"dataset.path={folder}"]
        record(given.work, name, [*words, *GRID])
        if name in MIXED:
            record(given.work, f"{name}_mixed", [*words, *CONTINUOUS])


def record(work: Path, name: str, words: list[str]) -> None:
    """Run the study, to the end where it was begun, and keep its table."""
    command = [sys.executable, "-m", "rag_opt.study", *words, f"name={name}", f"studies_dir={work}"]
    subprocess.run(command, check=True)
    write_parquet(load_table(work / name), HERE / "grids" / f"{name}.parquet")


def part(source: Path, place: Path, documents: int | None, questions: int | None) -> Path:
    """The folder of a part of a collection, the same for every call; the collection's own folder where all is taken."""
    if documents is None and questions is None:
        return source
    with (source / "qrels.tsv").open(encoding="utf-8") as file:
        qrels = [(row["query-id"], row["corpus-id"], row["score"]) for row in csv.DictReader(file, delimiter="\t")]
    corpus, queries = rows(source / "corpus.jsonl"), rows(source / "queries.jsonl")
    order = random.Random(0)
    order.shuffle(corpus)
    order.shuffle(queries)
    corpus = corpus[:documents]
    known = {row["_id"] for row in corpus}
    answered = {query for query, document, score in qrels if document in known and float(score) > 0}
    queries = [row for row in queries if row["_id"] in answered][:questions]
    chosen = {row["_id"] for row in queries}
    place.mkdir(parents=True, exist_ok=True)
    for name, content in (("corpus", corpus), ("queries", queries)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(row) for row in qrels if row[0] in chosen and row[1] in known)]
    (place / "qrels.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return place


def rows(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
