"""What a model of 135 million parameters is good for, into studies/small_model: `make.py --data FOLDER [--parts …]`.

FOLDER has msmarco_qa, squad_articles and mlflow_docs. Four parts, each with its table, all by SmolLM2 on this machine:
`answers` (prompts and syntheses, on questions that the documents answer and on others), `stages` (what else asks a
model: rerankers, rewritten queries), `sources` (30 long questions: no retrieval, vectors, with BM25, with a web that is
served here), `forecast` (five small studies: calls and tokens before, and paid after).
Differences are paired, question by question, with 95 % bootstrap intervals. `--questions` of each collection are asked.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rag_opt.analysis.paired import bootstrap_interval
from rag_opt.cli.study import run_study
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compose_trial
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.documents import Dataset, Query
from rag_opt.records.scores import Evaluation

HERE = Path(__file__).resolve().parent
MODEL = ["llm=smollm2", "retriever.top_k=3"]
DECLINED = re.compile(
    r"(?i)\b(not (provided|mentioned|stated|specified|given|contain|available|found|clear|possible|answer)|"
    r"(do|does|did)(n't| not) (hold|contain|provide|mention|say|state|specify|know|have|give|answer)|"
    r"no (information|answer|mention)|unknown|unclear|can(no|')t (be )?(answer|determine))"
)
"""How an answer says that there is none."""

PROMPTS, SYNTHESES = ("answer", "concise"), ("stuff", "compact_and_refine", "tree_summarize")
STAGES = {
    "none": [],
    "reranker=llm_pointwise": ["reranker=llm_pointwise"],
    "reranker=llm_listwise": ["reranker=llm_listwise", "reranker.window=10", "reranker.step=5"],
    "reranker=maxsim": ["reranker=maxsim"],
    "query=hyde": ["query=hyde", "query.max_tokens=64"],
    "query=multi_query": ["query=multi_query"],
    "query=rewrite": ["query=rewrite"],
}
PARTS = ("answers", "stages", "sources", "forecast")
SOURCES = ("none", "dense", "hybrid", "hybrid_web")


@dataclass(frozen=True)
class Asked:
    """A configuration as measured: its name, and its evaluation."""

    name: str
    found: Evaluation

    def mean(self, metric: str) -> float:
        return self.found.means.get(metric, float("nan"))

    @property
    def seconds(self) -> float:
        """What a question takes, the index there already."""
        return self.found.seconds["query"]


def load_few(data: Path, name: str, count: int) -> Dataset:
    """So many questions of a collection, all its documents."""
    words = ["dataset=beir", f"dataset.path={data / name}", f"dataset.num_queries={count}"]
    return load_dataset(compose_config(words))


def measure(words: Sequence[str], dataset: Dataset, metrics: Sequence[str], resources: Resources) -> Evaluation:
    """The scores of one configuration; everything it computes is kept for the next."""
    # Where nothing is retrieved there is no top_k.
    model = [word for word in MODEL if "retriever=none" not in words or not word.startswith("retriever.")]
    pipeline = build_pipeline(compose_trial([*model, *words]), resources)
    return evaluate_pipeline(pipeline, Questions.from_dataset(dataset, 4, 0), [get_metric(each) for each in metrics])


def format_difference(ours: Asked, base: Asked, metric: str) -> str:
    """Ours less the first row's, with its interval."""
    if ours is base:
        return ""
    apart = ours.found.per_query[metric] - base.found.per_query[metric]
    apart = apart[~np.isnan(apart)]
    low, high = bootstrap_interval(apart, 0)
    return f"{apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def tabulate(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def count_declined(answers: Sequence[str | None]) -> float:
    """The share of the answers that say there is none."""
    return float(np.mean([not said or bool(DECLINED.search(said)) for said in answers]))


def make_unanswerable(dataset: Dataset, data: Path, name: str) -> Dataset:
    """As many questions that the documents do not answer: MS MARCO's own, else these without their documents."""
    path = data / name / "queries_unanswerable.jsonl"
    if path.is_file():
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()][: len(dataset.queries)]
        return replace(dataset, queries=tuple(Query(row["_id"], row["text"]) for row in rows), qrels={})
    gold = {document for each in dataset.qrels.values() for document in each}
    return replace(dataset, documents=tuple(each for each in dataset.documents if each.id not in gold))


def compare_answers(data: Path, count: int, resources: Resources) -> list[str]:
    """A table a collection: prompts and syntheses by F1, by what they decline, by what they take."""
    tables = []
    for name in ("msmarco_qa", "squad_articles"):
        dataset = load_few(data, name, count)
        dataset = replace(dataset, queries=tuple(query for query in dataset.queries if query.answers))
        others = make_unanswerable(dataset, data, name)
        asked, rows = [], []
        for prompt in PROMPTS:
            for synthesis in SYNTHESES:
                words = ["generator=llm", f"generator.prompt={prompt}", f"generator.synthesis={synthesis}"]
                words += [
                    "generator.max_tokens=32",
                    *split(name),
                    *([] if synthesis == "stuff" else ["generator.pack_tokens=150"]),
                ]
                asked.append(
                    Asked(f"{prompt}, {synthesis}", measure(words, dataset, ["F1", "tokens", "calls"], resources))
                )
                wrong = measure(words, others, ["tokens"], resources)
                one = asked[-1]
                rows.append(
                    [
                        one.name,
                        f"{one.mean('F1'):.3f}",
                        format_difference(one, asked[0], "F1"),
                        f"{count_declined(one.found.answers):.0%}",
                        f"{1 - count_declined(wrong.answers):.0%}",
                        f"{one.mean('calls'):.1f}",
                        f"{one.mean('tokens'):,.0f}",
                        f"{one.seconds:.2f} s",
                    ]
                )
                print(name, rows[-1], flush=True)
        heads = ("prompt, synthesis", "F1", "against the first", "declined", "answered though it should not", "calls")
        table = tabulate((*heads, "tokens", "a question takes"), rows)
        tables.append(f"### {name}, {len(dataset.queries)} questions\n\n{table}")
    return tables


def split(name: str) -> list[str]:
    """Passages are read as they are, articles in pieces."""
    return ["splitter=none"] if name != "squad_articles" else ["splitter=sentence", "splitter.chunk_size=100"]


def compare_stages(data: Path, count: int, resources: Resources) -> list[str]:
    """A table: each stage that asks a model beside none, on msmarco_qa, ten passages ranked anew."""
    dataset, asked, rows = load_few(data, "msmarco_qa", count), [], []
    for name, stage in STAGES.items():
        words = [*stage, "generator=none", "splitter=none", "retriever.top_k=10"]
        asked.append(Asked(name, measure(words, dataset, ["nDCG@10", "tokens", "calls"], resources)))
        one = asked[-1]
        rows.append(
            [
                name,
                f"{one.mean('nDCG@10'):.3f}",
                format_difference(one, asked[0], "nDCG@10"),
                f"{one.mean('calls'):.1f}",
                f"{sum_model_tokens(one.found):,.0f}",
                f"{one.seconds:.2f} s",
            ]
        )
        print(rows[-1], flush=True)
    heads = ("stage", "nDCG@10", "against none", "calls", "tokens of calls", "a question takes")
    return [f"### msmarco_qa, {len(dataset.queries)} questions\n\n{tabulate(heads, rows)}"]


def sum_model_tokens(found: Evaluation) -> float:
    """What models read and wrote for a question, on average."""
    whole = sum(each.get("tokens_in", 0) + each.get("tokens_out", 0) for each in found.usage.values())
    return whole / len(found.query_ids)


def compare_sources(address: str, dataset: Dataset, resources: Resources) -> list[str]:
    """A table: the tutorial's comparison, on its own questions, by what answers have in common with the references."""
    asked, rows = [], []
    for name in SOURCES:
        words = [f"retriever={name}", "splitter=none", "generator=llm", "generator.max_tokens=64", f"web.url={address}"]
        words += [] if name == "none" else ["context=assembled", "context.max_tokens=900"]
        asked.append(Asked(name, measure(words, dataset, ["F1", "ROUGE-L", "similarity", "tokens"], resources)))
        one = asked[-1]
        rows.append(
            [
                name,
                f"{one.mean('F1'):.3f}",
                format_difference(one, asked[0], "F1"),
                f"{one.mean('ROUGE-L'):.3f}",
                f"{one.mean('similarity'):.3f}",
                format_difference(one, asked[0], "similarity"),
                f"{one.mean('tokens'):,.0f}",
                f"{one.seconds:.2f} s",
            ]
        )
        print(rows[-1], flush=True)
    heads = ("retrieval", "F1", "against none", "ROUGE-L", "similarity", "against none", "tokens", "a question takes")
    return [f"### mlflow_docs, {len(dataset.queries)} questions\n\n{tabulate(heads, rows)}"]


def serve_sources(data: Path, resources: Resources, folder: Path) -> list[str]:
    """`compare_sources` with a search service over the same pages on this machine."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.services import served

    dataset, pages = load_few(data, "mlflow_docs", 30), folder / "pages.jsonl"
    rows = [
        {"url": f"https://example.org/{each.id}", "title": each.title, "content": each.text}
        for each in dataset.documents
    ]
    pages.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    with served("search_server.py", "--pages", str(pages)) as web:
        return compare_sources(f"{web}/searxng/search", dataset, resources)


FORECAST = {
    "answers, prompts and retrieval": ["generator=llm", "objective=answer", "search_space=small_model"],
    "reranker=llm_listwise": ["reranker=llm_listwise", "reranker.window=10", "reranker.step=5"],
    "query=multi_query": ["query=multi_query"],
    "query=rewrite": ["query=rewrite"],
    "query=hyde": ["query=hyde", "retriever=dense", "search_space=chunking"],
}
"""Five studies: what each chooses beside the packaged questions and a space of retrieval."""


def compare_forecasts(folder: Path) -> list[str]:
    """A table: calls, tokens and minutes as forecast before the first trial, and as they were."""
    rows = []
    for name, words in FORECAST.items():
        place = folder / f"study_{len(rows)}"
        base = ["llm=smollm2", "search_space=retrieval", "dataset.num_queries=24", "retriever.top_k=3", "n_trials=3"]
        base += ["sampler=random", "pruner=none", "tracking=none", "confirmation.method=split", "name=forecast"]
        base += ["generator.max_tokens=16"] if "generator=llm" in words else ["generator=none"]
        given = [*base, *words, f"studies_dir={place}", f"store.path={folder}/store_{len(rows)}"]
        run_study(given, quiet=True)
        end = time.time()
        found = json.loads((place / "forecast" / "findings.json").read_text("utf-8"))
        told, paid = found["forecast"], found["paid"]
        took = end - told["at"]
        rows.append([name])
        for key in ("calls", "tokens"):
            rows[-1] += [f"{told[key]:,.0f}", f"{paid[key]:,.0f}", f"{told[key] / paid[key] - 1:+.0%}"]
        rows[-1] += [f"{told['seconds'] / 60:.1f}", f"{took / 60:.1f}", f"{told['seconds'] / took - 1:+.0%}"]
        print(rows[-1], flush=True)
    heads = [f"{what} {part}" for what in ("calls", "tokens", "minutes") for part in ("forecast", "in fact", "off by")]
    return [tabulate(["study of 3 trials, 24 questions", *heads], rows)]


def main() -> None:
    # What programs of studies share lies beside their folders.
    sys.path.insert(0, str(HERE.parent))
    from machine import describe_processor

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--store", type=Path, help="where what is computed is kept; without it nothing is")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or Path(folder) / "store"
        resources = build_resources(compose_config([f"store.path={store}"]))
        parts = {
            "answers": lambda: compare_answers(given.data, given.questions, resources),
            "stages": lambda: compare_stages(given.data, given.questions, resources),
            "sources": lambda: serve_sources(given.data, resources, Path(folder)),
            "forecast": lambda: compare_forecasts(Path(folder)),
        }
        for part in given.parts:
            text = "\n\n".join([*parts[part](), f"Measured on {describe_processor()}."])
            (HERE / f"{part}.md").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
