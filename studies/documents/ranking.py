"""Do questions that a small model made rank configurations as people's questions do? `ranking.md`.

python studies/documents/ranking.py --data FOLDER [--work FOLDER] [NAME ...]

The configurations of conf/search_space/grid.yaml were recorded on people's questions (../samplers/record.py); where
there are thousands of these, they are recorded on ten times as many here. SmolLM2 writes questions about the same
documents (`questions make llm=smollm2 --simple`), the grid is recorded on these, and both orders are compared by
Kendall's tau-b. Intervals are percentiles of 2,000 bootstraps that draw people's and made questions anew. "People
alone" is the tau between two halves of people's questions, the mean of 200 divisions: how far that many questions agree
with their like.

Many configurations of a grid are nearly equal, and no set of questions has a true order for these. So the pairs that
people's questions tell apart (the 95 % interval of their paired difference leaves out 0) are looked at by themselves:
how many of them do made questions order the same way? Kendall's tau over these alone is twice that share less one.
Their interval draws made questions anew. "Half of people's": the pairs that one half of people's questions tells apart,
ordered by the other half, and by made questions. At p < 0.05, pair by pair: one in twenty of the pairs that no question
could tell apart is among them, too.

"Not searched": questions that were made without the search that leaves out what asks for another document
(rag_opt/questions/searching.py), so that one sees what it is worth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "samplers")]

from machine import describe_processor  # noqa: E402 (it lies beside the folders of studies)
from record import GRID, PARTS, WORDS, part  # noqa: E402

from rag_opt.simulation.tables import Table, load_table  # noqa: E402

COUNTS = {"squad_articles": 800, "mlflow_docs": 300, "python_docs": 300}
"""The collections, and how many questions are made about each.

How made questions are sifted was chosen looking at the first two, with fewer questions; the last one was not looked at.
"""

MANY = {"squad_articles": 2_000}
"""Of people's questions so many are taken where there are as many: two hundred do not agree with their own like."""

DRAWS, DIVISIONS, ALPHA = 2_000, 200, 0.05
UNSEARCHED = """
import sys
from rag_opt.cli.questions import main
from rag_opt.questions import searching
searching.build_search = lambda *given: None
main(sys.argv[1:])
"""
"""`questions make` without its search: no setting turns that off, since nobody would want to."""

KINDS = ("all", "bm25", "dense", "hybrid")
"""Which configurations are compared: all, and those of one retriever."""

Scores = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(COUNTS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("ranking"))
    given = parser.parse_args()
    lines = list(write_head())
    for name in given.names:
        data = [*name_data(name, given.data, given.work), f"store.path={given.work}/store"]
        people = record_people(given.work, name, data)
        lines += list(compare(name, people, record_made(given.work, name, data)))
        plain = record_made(given.work, name, data, searched=False)
        lines += list(compare(f"{name}, not searched", people, plain, KINDS[:1]))
    lines += ["", f"Measured on {describe_processor()}."]
    (HERE / "ranking.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def name_data(name: str, source: Path, work: Path) -> list[str]:
    """The words that name a collection, or the part of it that is taken."""
    if name == "python_docs":
        return ["dataset=python_docs"]
    documents, questions = PARTS[name]
    folder = part(source / name, work / "data" / name, documents, MANY.get(name, questions))
    return ["dataset=beir", f"dataset.path={folder}"]


def record_people(work: Path, name: str, data: list[str]) -> Table:
    """The grid on people's questions: as it was recorded for the samplers, or here on many more."""
    if name not in MANY:
        return load_table(HERE.parent / "samplers" / "grids" / f"{name}.parquet")
    words = [*WORDS, *data, *GRID, f"name={name}_people", f"studies_dir={work}"]
    subprocess.run([sys.executable, "-m", "rag_opt.study", *words], check=True)
    return load_table(work / f"{name}_people")


def record_made(work: Path, name: str, data: list[str], searched: bool = True) -> Table:
    """The grid on questions that are made of these documents, each step taken up where it was left."""
    count, name = COUNTS[name], name if searched else f"{name}_unsearched"
    questions = work / f"{name}_questions"
    made = ["make", *data, "llm=smollm2", "--simple", "--count", str(count), "--out", str(questions)]
    program = ["-m", "rag_opt.questions"] if searched else ["-c", UNSEARCHED]
    subprocess.run([sys.executable, *program, *made], check=True)
    made_of = [f"dataset.{kind}={questions}/{kind}.jsonl" for kind in ("documents", "questions")]
    given = [*WORDS, *data[-1:], "dataset=jsonl", *made_of, *GRID]
    words = [*given, f"name={name}_made", f"studies_dir={work}"]
    subprocess.run([sys.executable, "-m", "rag_opt.study", *words], check=True)
    return load_table(work / f"{name}_made")


def compare(name: str, people: Table, made: Table, kinds: Sequence[str] = KINDS) -> Iterator[str]:
    """The rows of a collection, one for each kind of configurations."""
    places = {frozenset(each.items()): row for row, each in enumerate(made.configurations)}
    pairs = [(row, places.get(frozenset(each.items()))) for row, each in enumerate(people.configurations)]
    shared = [(row, other) for row, other in pairs if other is not None]
    rows = [row for row, _ in shared]
    left, right = people.scores[rows], made.scores[[other for _, other in shared]]
    for kind in kinds:
        chosen = np.array([kind in ("all", people.configurations[row]["retriever"]) for row in rows])
        ours, theirs = left[chosen], right[chosen]
        tau, (low, high) = measure_tau(ours, theirs), bootstrap(ours, theirs)
        best = int(np.nanargmax(average(theirs)))
        regret, (least, most) = measure_regret(ours, best)
        cells = [name, kind, len(ours), ours.shape[1], theirs.shape[1], f"{tau:.2f} [{low:.2f}, {high:.2f}]"]
        cells += [f"{divide(ours):.2f}", *describe_pairs(ours, theirs), f"{regret:+.3f} [{least:+.3f}, {most:+.3f}]"]
        yield f"| {' | '.join(map(str, cells))} |"


def average(scores: Scores) -> Scores:
    means: Scores = np.nanmean(scores, axis=1)
    return means


def measure_tau(ours: Scores, theirs: Scores) -> float:
    return float(stats.kendalltau(average(ours), average(theirs)).statistic)


def bootstrap(ours: Scores, theirs: Scores) -> tuple[float, float]:
    """The middle 95 % of tau where both sets of questions are drawn anew."""
    draw = np.random.default_rng(0)
    found = [
        measure_tau(*(each[:, draw.integers(each.shape[1], size=each.shape[1])] for each in (ours, theirs)))
        for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def divide(scores: Scores) -> float:
    """The mean tau between two halves of one set of questions."""
    draw, half = np.random.default_rng(0), scores.shape[1] // 2
    orders = [draw.permutation(scores.shape[1]) for _ in range(DIVISIONS)]
    return float(np.mean([measure_tau(scores[:, each[:half]], scores[:, each[half:]]) for each in orders]))


def describe_pairs(ours: Scores, theirs: Scores) -> list[str]:
    """Four cells: the pairs told apart, those of them ordered the same way, tau over these, both by half of people's.

    All but the first are empty where no pair is told apart.
    """
    pairs = find_decided(ours)
    draw = np.random.default_rng(0)
    again = (theirs[:, draw.integers(theirs.shape[1], size=theirs.shape[1])] for _ in range(DRAWS))
    total = len(ours) * (len(ours) - 1) // 2
    if not len(pairs):
        return [f"0 of {total:,}", "", "", ""]
    share, drawn = count_agreed(pairs, theirs), [count_agreed(pairs, each) for each in again]
    low, high = np.percentile(drawn, [2.5, 97.5])
    orders, half = [draw.permutation(ours.shape[1]) for _ in range(DIVISIONS)], ours.shape[1] // 2
    parts = [(find_decided(ours[:, each[:half]]), ours[:, each[half:]]) for each in orders]
    halves = [(count_agreed(decided, rest), count_agreed(decided, theirs)) for decided, rest in parts if len(decided)]
    people, made = np.mean(halves, axis=0) if halves else (np.nan, np.nan)
    tau = "{:.2f} [{:.2f}, {:.2f}]".format(*(2 * each - 1 for each in (share, low, high)))
    agreed = [f"{share:.0%} [{low:.0%}, {high:.0%}]", tau, f"{people:.0%}, {made:.0%}"]
    return [f"{len(pairs):,} of {total:,}", *agreed]


def find_decided(scores: Scores) -> NDArray[np.intp]:
    """Pairs of configurations, the better one first, that these questions tell apart: Student's paired t, p < 0.05."""
    found = list[tuple[int, int]]()
    for row in range(len(scores) - 1):
        test = stats.ttest_1samp(scores[row] - scores[row + 1 :], 0.0, axis=1, nan_policy="omit")
        apart = np.flatnonzero(test.pvalue < ALPHA)
        pairs = [(row, row + 1 + int(place)) for place in apart]
        found += [pair if test.statistic[place] > 0 else pair[::-1] for pair, place in zip(pairs, apart, strict=True)]
    return np.array(found, dtype=np.intp).reshape(-1, 2)


def count_agreed(pairs: NDArray[np.intp], scores: Scores) -> float:
    """The share of these pairs, one at least, that the scores order the same way, a tie half."""
    means = average(scores)
    gaps = means[pairs[:, 0]] - means[pairs[:, 1]]
    return float(np.mean((np.sign(gaps) + 1) / 2))


def measure_regret(scores: Scores, chosen: int) -> tuple[float, tuple[float, float]]:
    """What the chosen configuration lacks to people's best one, by people's questions, paired."""
    best = int(np.nanargmax(average(scores)))
    gaps = scores[chosen] - scores[best]
    draw = np.random.default_rng(0)
    means = [np.nanmean(gaps[draw.integers(len(gaps), size=len(gaps))]) for _ in range(DRAWS)]
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(np.nanmean(gaps)), (float(low), float(high))


def write_head() -> Iterator[str]:
    yield "Configurations ranked by questions that SmolLM2 made, and by people's:"
    yield ""
    heads = ["collection", "retriever", "configurations", "people's questions", "made questions", "tau"]
    heads += [
        "tau of people alone",
        "pairs that people's tell apart",
        "ordered the same way",
        "tau over these",
        "half of people's: by the other half, by made questions",
    ]
    heads += ["made questions' first choice by people's nDCG@10, less their best"]
    yield f"| {' | '.join(heads)} |"
    yield f"| --- | --- |{' ---: |' * (len(heads) - 2)}"


if __name__ == "__main__":
    main()
