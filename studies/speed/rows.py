"""The measurements: each row is a function from a Setup to Figures, ratios being of things measured side by side."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Setup:
    """Where the data is, where to work, how large and how often."""

    data: Path
    work: Path
    rounds: int = 5
    stock_rounds: int = 5
    passages: int = 1_000
    questions: int = 100
    trials: int = 30
    whole: int | None = None
    sizes: tuple[int, ...] = (1_000, 10_000, 69_720)

    @classmethod
    def quick(cls, data: Path, work: Path) -> Setup:
        return cls(data, work, 1, 1, 120, 40, 8, 300, (300, 600))

    def folder(self, name: str) -> Path:
        """A new, empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))


@dataclass(frozen=True)
class Figure:
    """A measured row: its values, round by round, and what they are to reach."""

    row: str
    what: str
    unit: str
    values: tuple[float, ...]
    target: str = ""
    detail: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Process:
    """A finished process: seconds from start to end, and the most memory it held, in GiB."""

    seconds: float
    peak: float


def ran(*words: str | Path, environment: dict[str, str] | None = None) -> Process:
    """Run a command to its end; raises RuntimeError with its last lines when it fails."""
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in words], stdout=log, stderr=log, env=os.environ | (environment or {}), cwd=ROOT
        )
        peak = 0
        # The system's own figure of a child begins with its parent's.
        while process.poll() is None:
            peak = max(peak, memory_peak(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{words}: {log.read()[-2000:].decode(errors='replace')}")
    return Process(seconds, peak / 2**20)


def memory_peak(pid: int) -> int:
    """The most memory that a running process has held, in KiB; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


METRIC = "context.nDCG@10"
"""Of what is handed on: so top_k is searched, and stock components, which know nothing else, measure the same."""


def study(folder: Path, studies: Path, *words: str, name: str = "ours", seed: int = 0) -> list[str]:
    """The command of a retrieval study on a BEIR folder."""
    return [
        *(sys.executable, "-m", "rag_opt.study", "dataset=beir", f"dataset.path={folder}", "dataset.test_share=0.03"),
        *("splitter=none", "search_space=retrieval", "pruner=none", f"studies_dir={studies}"),
        *(f"objective.metrics=['{METRIC}']", f"name={name}", f"seed={seed}", *words),
    ]


HYBRID = ("retriever=hybrid", "retriever.k1=1.2", "retriever.b=0.75")
"""Leaves top_k, fusion, hybrid_weight and the scaling to be searched: what costs arithmetic only."""


@dataclass(frozen=True)
class Trial:
    """A finished trial: when it began and ended (seconds), its parameters and user attributes."""

    start: float
    end: float
    params: dict[str, object]
    attributes: dict[str, object]


def trials(studies: Path, name: str = "ours") -> list[Trial]:
    """The measured trials: one that repeats an earlier configuration costs nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.load_study(study_name=name, storage=f"sqlite:///{studies}/{name}/study.db").trials
    return [
        Trial(t.datetime_start.timestamp(), t.datetime_complete.timestamp(), t.params, t.user_attrs)
        for t in found
        if "repeats" not in t.user_attrs
    ]


def cut(setup: Setup, source: str, documents: int | None, questions: int | None) -> Path:
    """A BEIR folder with the first questions, their relevant passages, and others up to `documents`."""
    from rag_opt.datasets import beir

    whole = beir.load(str(setup.data / source))
    asked = whole.queries[:questions]
    wanted = {key for query in asked for key, grade in whole.qrels.get(query.id, {}).items() if grade > 0}
    rest = [document for document in whole.documents if document.id not in wanted]
    room = len(whole.documents) if documents is None else max(0, documents - len(wanted))
    kept = [d for d in whole.documents if d.id in wanted] + rest[:room]
    folder = setup.folder(f"{source}-{len(kept)}")
    ids = {document.id for document in kept}
    write_lines(folder / "corpus.jsonl", [json.dumps({"_id": d.id, "title": d.title, "text": d.text}) for d in kept])
    write_lines(folder / "queries.jsonl", [json.dumps({"_id": q.id, "text": q.text}) for q in asked])
    grades = [
        f"{q.id}\t{key}\t{grade}" for q in asked for key, grade in whole.qrels.get(q.id, {}).items() if key in ids
    ]
    write_lines(folder / "qrels.tsv", ["query-id\tcorpus-id\tscore", *grades])
    return folder


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


# ---- the rows


def against_stock(setup: Setup) -> list[Figure]:
    """The same configurations, ours from an empty store, theirs rebuilt per trial; whole processes.

    In each round stock runs a part of the configurations, every n-th, and its trials' time is scaled to all of them:
    they are independent of each other, and over the rounds each configuration is run once.
    """
    folder = cut(setup, "msmarco_qa", setup.passages, setup.questions)
    ratios, ours, theirs, gaps = [], [], [], []
    for number in range(setup.rounds):
        studies = setup.folder("study")
        command = study(folder, studies, "generator=none", f"n_trials={setup.trials}")
        ours.append(ran(*command, environment={"RAG_OPT_STORE": str(studies / "store")}).seconds)
        done = trials(studies)
        theirs_folder = only_searched(setup, folder, studies)
        part = list(range(number, len(done), setup.rounds))
        configurations, scores = studies / "configurations.json", studies / "stock.json"
        configurations.write_text(json.dumps([done[i].params for i in part]))
        whole = ran(sys.executable, HERE / "stock.py", theirs_folder, configurations, scores).seconds
        told = json.loads(scores.read_text())
        inside = sum(row["seconds"] for row in told)
        theirs.append(whole - inside + inside * len(done) / len(part))
        ratios.append(theirs[-1] / ours[-1])
        gaps += [row["nDCG@10"] - done[i].attributes["metrics"][METRIC] for row, i in zip(told, part, strict=True)]
        say(f"round {number + 1}: ours {ours[-1]:.1f} s, stock {theirs[-1]:.1f} s")
    kinds = [str(trial.params["retriever"]) for trial in done]
    detail = (
        f"ours {seconds(ours)}, stock {seconds(theirs)}, whole processes with their start; "
        f"{', '.join(f'{kinds.count(kind)} {kind}' for kind in sorted(set(kinds)))}; "
        f"mean nDCG@10 of stock less ours {statistics.fmean(gaps):+.4f}"
    )
    size = f"{setup.passages:,} passages × {setup.questions} questions"
    what = f"{setup.trials}-trial study, {size}: stock / ours, empty store"
    return [Figure("stock", what, "×", tuple(ratios), "≥ 40", detail)]


def only_searched(setup: Setup, folder: Path, studies: Path) -> Path:
    """The BEIR folder with the questions alone that our study searched with."""
    table = json.loads((studies / "ours" / "trials" / "0000" / "per_query.json").read_text("utf-8"))
    searched = {row[0] for row in table["data"]}
    copy = setup.folder("searched")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    write_lines(copy / "queries.jsonl", [line for line in lines if json.loads(line)["_id"] in searched])
    return copy


def warm(setup: Setup) -> list[Figure]:
    """Trials of which only top_k, fusion and weight change; everything included, and what is not evaluation."""
    folder = cut(setup, "msmarco_qa", setup.whole, None)
    store = {"RAG_OPT_STORE": str(setup.folder("store"))}
    figures, fastest = [], 0.0
    ran(*study(folder, setup.folder("first"), *HYBRID, "n_trials=2"), environment=store)
    for generator in ("none", "extractive"):
        spans, overheads = [], []
        for seed in range(setup.rounds):
            studies = setup.folder("warm")
            command = study(folder, studies, *HYBRID, f"generator={generator}", "n_trials=30", seed=seed)
            ran(*command, environment=store)
            done = trials(studies)[5:]
            walls = [after.start - before.start for before, after in pairwise(done)]
            inside = [float(trial.attributes["seconds"]["evaluation"]) for trial in done]
            spans.append(1000 * statistics.median(walls))
            overheads.append(1000 * statistics.median(w - i for w, i in zip(walls, inside, strict=False)))
        label = f"warm trial, generator={generator}"
        figures.append(Figure("warm", f"{label}: all", "ms", tuple(spans), "≤ 120"))
        figures.append(Figure("warm", f"{label}: of it not evaluation", "ms", tuple(overheads), "≤ 80"))
        fastest = fastest or statistics.median(spans)
    config = {
        "retriever": "hybrid",
        "retriever.top_k": 10,
        "retriever.fusion": "weighted",
        "retriever.hybrid_weight": 0.5,
    }
    one, out = setup.work / "one.json", setup.work / "one-scores.json"
    one.write_text(json.dumps([config]))
    ratios = []
    for _ in range(setup.stock_rounds):
        ran(sys.executable, HERE / "stock.py", folder, one, out)
        Path(f"{out}.db").unlink()
        ratios.append(1000 * json.loads(out.read_text())[0]["seconds"] / fastest)
    what = "stock hybrid trial / our warm one, same data"
    return [
        *figures,
        Figure("warm", what, "×", tuple(ratios), detail=f"stock {ratios[0] * fastest / 1000:.0f} s a trial"),
    ]


def floor(setup: Setup) -> list[Figure]:
    """Cold indexing (chunks, vectors, matrix, BM25 counts, all written) against the encoder alone; same process."""
    from rag_opt.cache.store import Store
    from rag_opt.components.embedders.embed import ChunkEmbedder
    from rag_opt.components.embedders.encoders import MiniLM
    from rag_opt.components.resources import Resources
    from rag_opt.components.retrievers.bm25 import BM25Indexer
    from rag_opt.components.splitters.chunkers import NoSplitter
    from rag_opt.datasets import beir
    from rag_opt.datasets.checks import get_corpus

    documents = get_corpus(beir.load(str(cut(setup, "msmarco_qa", 3 * setup.passages, 10))))
    texts = sorted({document.text for document in documents.items}, key=len)
    encoder = MiniLM()
    encoder.use(Resources.from_store(Store(setup.folder("pace"))))
    encoder.encode(texts[:256])
    ratios = []
    for number in range(setup.rounds):
        store = Store(setup.folder("store"))

        def indexed(store: Store = store) -> None:
            chunker, indexer = NoSplitter(), BM25Indexer(1.2, 0.75, "lucene", "english", "english")
            embedder = ChunkEmbedder(encoder)
            # The encoder keeps its own resources, and in it the loaded model.
            chunker.resources = embedder.resources = indexer.resources = Resources.from_store(store)
            chunks = chunker.run(documents)["chunks"]
            embedder.run(chunks)
            indexer.run(chunks)["bm25_index"].model()

        spans = {}
        for name in ("alone", "indexed") if number % 2 else ("indexed", "alone"):
            spans[name] = timed(indexed if name == "indexed" else lambda: encoder.encode(texts))
        ratios.append(spans["indexed"] / spans["alone"])
    what = f"cold indexing of {len(documents.items):,} passages / the encoder alone on their texts"
    return [Figure("floor", what, "×", tuple(ratios), "≤ 1.05")]


def encoder(setup: Setup) -> list[Figure]:
    """Our way to run MiniLM against the library's defaults: passages a second, and what it does to the ranking."""
    import ir_measures
    from sentence_transformers import SentenceTransformer

    from rag_opt.cache.store import Store
    from rag_opt.components.embedders.encoders import MiniLM
    from rag_opt.components.embedders.minilm import find_minilm
    from rag_opt.components.resources import Resources
    from rag_opt.datasets import beir

    dataset = beir.load(str(cut(setup, "msmarco_qa", setup.passages, setup.questions)))
    texts, asked = [d.text for d in dataset.documents], [q.text for q in dataset.queries]
    ours = MiniLM()
    ours.use(Resources.from_store(Store(setup.folder("pace"))))
    ours.encode(texts[:256])
    library = SentenceTransformer(str(find_minilm()))
    ways = {"library": lambda each: library.encode(each, normalize_embeddings=True), "ours": ours.encode}
    for way in ways.values():
        way(texts[:64])
    spans: dict[str, list[float]] = {"library": [], "ours": []}
    scores = {}
    for number in range(setup.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            spans[name].append(timed(lambda way=ways[name]: way(texts)))
    for name, way in ways.items():
        similar = way(asked) @ way(texts).T
        run = {
            query.id: {document.id: float(value) for document, value in zip(dataset.documents, row, strict=True)}
            for query, row in zip(dataset.queries, similar, strict=True)
        }
        qrels = {key: dict(value) for key, value in dataset.qrels.items()}
        scores[name] = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
    ratios = [a / b for a, b in zip(spans["library"], spans["ours"], strict=True)]
    rates = {name: len(texts) / statistics.median(each) for name, each in spans.items()}
    detail = (
        f"{ours.dtype}: {rates['ours']:.0f} passages/s against {rates['library']:.0f}; "
        f"nDCG@10 {scores['ours']:.4f} against {scores['library']:.4f}"
    )
    target = "≥ 2.5, with fast bfloat16"
    return [
        Figure(
            "encoder",
            f"MiniLM on {len(texts):,} passages: library's defaults / ours",
            "×",
            tuple(ratios),
            target,
            detail,
        ),
        Figure("encoder", "nDCG@10, ours less library's", "", (scores["ours"] - scores["library"],), "within 0.003"),
    ]


AVX2_ONLY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What PyTorch and its libraries read to use no instructions beyond AVX2."""


def beside(setup: Setup) -> list[Figure]:
    """The encoder against the library's defaults, quiet and beside two busy processes, also with AVX2 alone."""
    from rag_opt.components.embedders.minilm import find_minilm

    model = find_minilm()
    figures = []
    for machine, environment in (("", {}), (", AVX2 alone", AVX2_ONLY)):
        for count, target in ((0, "≥ 1.3"), (2, "≥ 1.0")):
            corpus = cut(setup, "msmarco_qa", setup.passages // (4 if count else 2), setup.questions // 4)
            rates: dict[str, list[float]] = {"ours": [], "library": []}
            with busy(count):
                for number in range(setup.rounds):
                    for way in sorted(rates, reverse=bool(number % 2)):
                        words = [sys.executable, HERE / "encoding.py", way, model, corpus / "corpus.jsonl"]
                        told = subprocess.run(
                            [str(word) for word in words], env=os.environ | environment, capture_output=True, check=True
                        )
                        rates[way].append(float(told.stdout))
            ratios = tuple(ours / theirs for ours, theirs in zip(rates["ours"], rates["library"], strict=True))
            middle = {way: statistics.median(each) for way, each in rates.items()}
            where = f"beside {count} busy processes" if count else "quiet"
            detail = f"{middle['ours']:.1f} passages/s against {middle['library']:.1f}"
            what = f"MiniLM{machine}, {where}: ours / library's defaults"
            figures.append(Figure("beside", what, "×", ratios, target, detail))
    return figures


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside this one that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def second(setup: Setup) -> list[Figure]:
    """Another study over the same data: nothing is embedded, and the first trial comes at once."""
    folder = cut(setup, "msmarco_qa", setup.whole, None)
    place = setup.folder("store")
    store = {"RAG_OPT_STORE": str(place)}
    ran(*study(folder, setup.folder("one"), "n_trials=4"), environment=store)
    embedded, firsts = [], []
    for seed in range(setup.rounds):
        before, studies = rows_embedded(place), setup.folder("two")
        ran(*study(folder, studies, "n_trials=4", seed=seed), environment=store)
        first = trials(studies)[0]
        firsts.append(first.end - first.start)
        embedded.append(float(rows_embedded(place) - before))
    return [
        Figure("second", "second study, warm store: texts embedded", "texts", tuple(embedded), "0"),
        Figure("second", "second study, warm store: first trial", "s", tuple(firsts), "< 1"),
    ]


def rows_embedded(store: Path) -> int:
    """How many texts the store has vectors of, those of each encoder."""
    from rag_opt.cache.artifact_files import read_table

    # Another order of the same questions is a block of its own, copied from what there is.
    found = {path: read_table(path).columns["name"] for path in (store / "vectors").rglob("*.arrow")}
    return len({(path.parent, str(name)) for path, names in found.items() for name in names})


def growth(setup: Setup) -> list[Figure]:
    """Seconds by stage and the peak of memory as the corpus grows."""
    figures, spans = [], []
    for size in setup.sizes:
        folder, studies, place = cut(setup, "msmarco_large", size, 373), setup.folder("growth"), setup.folder("store")
        store = {"RAG_OPT_STORE": str(place)}
        # With k1 and b searched, so that indexes are made again and again.
        process = ran(*study(folder, studies, "generator=none", "n_trials=12", name="peak"), environment=store)
        ran(*study(folder, studies, *HYBRID, "generator=none", "n_trials=15"), environment=store)
        done = trials(studies)[3:]
        spans.append(1000 * statistics.median(b.start - a.start for a, b in pairwise(done)))
        stages = ", ".join(f"{stage} {spent:.2g} s" for stage, spent in stage_seconds(place).items())
        detail = f"{stages}; whole process {process.seconds:.0f} s; warm trial {spans[-1]:.0f} ms"
        target = "≤ 2.5" if size == max(setup.sizes) else ""
        figures.append(
            Figure("growth", f"{size:,} passages × 373 questions: peak memory", "GiB", (process.peak,), target, detail)
        )
    growth_of_size = setup.sizes[-1] / setup.sizes[0]
    what = f"warm trial at {setup.sizes[-1]:,} / at {setup.sizes[0]:,} passages"
    return [*figures, Figure("growth", what, "×", (spans[-1] / spans[0],), f"≤ {growth_of_size:.0f} (linear)")]


def stage_seconds(store: Path) -> dict[str, float]:
    """The seconds that each stage's artifacts took when they were made."""
    from rag_opt.cache.artifact_files import read_folder, read_table
    from rag_opt.cache.eviction import list_artifacts

    spent: dict[str, float] = {}
    for artifact in list_artifacts(store):
        if artifact.stage in ("chunks", "vectors", "bm25 counts", "rankings"):
            took = read_folder(artifact.path) if artifact.path.is_dir() else read_table(artifact.path).seconds
            spent[artifact.stage] = spent.get(artifact.stage, 0.0) + took
    return dict(sorted(spent.items()))


def workers(setup: Setup) -> list[Figure]:
    """Two workers on two cores, on trials that compute (BM25 weighed and searched anew, fused, answered, scored)."""
    folder = cut(setup, "msmarco_qa", setup.whole, None)
    place = setup.folder("store")
    ran(*study(folder, setup.folder("first"), "n_trials=4"), environment={"RAG_OPT_STORE": str(place)})
    count = 2 * max(4, setup.trials // 2)
    gains: dict[str, list[float]] = {"one core": [], "all cores": []}
    for seed in range(setup.rounds):
        common = ("retriever=hybrid", "retriever.fusion=weighted", "sampler=random")
        rates = {}
        for label, names, each, threads in (
            ("one core", ["a"], count, "1"),
            ("all cores", ["b"], count, "null"),
            ("two", ["c", "d"], count // 2, "1"),
        ):
            studies, store = setup.folder("workers"), setup.folder("copy") / "store"
            shutil.copytree(place, store)
            rates[label] = throughput(folder, studies, store, names, each, (*common, f"threads={threads}"), seed)
        for label, values in gains.items():
            values.append(rates["two"] / rates[label])
    return [
        Figure(
            "workers",
            "two workers of a core each / one worker of a core: trials a minute",
            "×",
            tuple(gains["one core"]),
            "≥ 1.7",
        ),
        Figure("workers", "two workers of a core each / one worker of both cores", "×", tuple(gains["all cores"])),
    ]


def throughput(
    folder: Path, studies: Path, store: Path, names: Sequence[str], each: int, words: Sequence[str], seed: int
) -> float:
    """Trials a second while all are at work, processes' starts left out."""
    commands = [
        study(folder, studies, *words, f"n_trials={each}", name=name, seed=10 * seed + number)
        for number, name in enumerate(names)
    ]
    environment = os.environ | {"RAG_OPT_STORE": str(store)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, env=environment, cwd=ROOT, **quiet) for command in commands]
    if any(process.wait() for process in processes):
        raise RuntimeError(f"a worker failed: {commands}")
    done = [trials(studies, name)[1:] for name in names]
    begin, end = max(each[0].start for each in done), min(each[-1].end for each in done)
    inside = sum(begin <= trial.start and trial.end <= end for each in done for trial in each)
    return inside / (end - begin)


def help_(setup: Setup) -> list[Figure]:
    """What a command that computes nothing takes."""
    figures = []
    for words in (["--help"], ["--cfg", "job"]):
        spans = tuple(ran(sys.executable, "-m", "rag_opt.study", *words).seconds for _ in range(max(5, setup.rounds)))
        figures.append(Figure("help", f"`{' '.join(words)}`", "s", spans, "≤ 1.0"))
    return figures


ROWS: dict[str, Callable[[Setup], list[Figure]]] = {
    "stock": against_stock,
    "warm": warm,
    "floor": floor,
    "encoder": encoder,
    "beside": beside,
    "second": second,
    "growth": growth,
    "workers": workers,
    "help": help_,
}


def timed(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
