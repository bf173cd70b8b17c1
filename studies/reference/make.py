"""Studies of six collections with today's defaults, compared: `python studies/reference/make.py --data FOLDER`.

FOLDER has one folder a collection in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv); python_docs needs none. Of
nfcorpus the dev questions are searched and the test questions confirm, where both are there (queries_dev.jsonl,
qrels_dev.tsv). Reports and the table go beside this file, the studies themselves into --work; what was run is resumed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORDS: dict[str, tuple[str, ...]] = {
    "python_docs": (),
    "mlflow_docs": (),
    "msmarco_qa": (),
    "nfcorpus": (),
    "squad_articles": ("dataset.num_queries=1000", "dataset.seed=0"),
    "trec_dl19_20": (),
}
"""The collections, and what each study is told beside its data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(WORDS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("studies/across"))
    given = parser.parse_args()
    for name in given.names:
        run_study(name, given.data / name, given.work)
        out = HERE / name
        out.mkdir(exist_ok=True)
        for file in ("best.yaml", "report.md"):
            # What the commands in it name is where the data lies on this machine.
            text = (given.work / name / file).read_text("utf-8")
            for place, told in ((given.work.resolve(), "studies"), (given.work, "studies"), (given.data, "data")):
                text = text.replace(place.as_posix(), told)
            (out / file).write_text(text, "utf-8")
    if len(given.names) > 1:
        folders = [str(given.work / name) for name in given.names]
        subprocess.run([sys.executable, "-m", "rag_opt.report", *folders], check=True)
        shutil.copy(given.work / "comparison.md", HERE / "comparison.md")


def run_study(name: str, data: Path, work: Path) -> None:
    """Run the study of a collection, to the end where it was begun."""
    words = [f"name={name}", f"studies_dir={work}", "n_trials=40", "tracking=none", *WORDS[name]]
    if name != "python_docs":
        words += ["dataset=beir", f"dataset.path={join_splits(data, work)}"]
    subprocess.run([sys.executable, "-m", "rag_opt.study", *words], check=True)


def join_splits(data: Path, work: Path) -> Path:
    """The folder itself; of one whose dev questions lie in files of their own, a folder with both splits."""
    if not (data / "qrels_dev.tsv").is_file():
        return data
    place = work / "data" / data.name
    (place / "qrels").mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "corpus.jsonl", place / "corpus.jsonl")
    queries = [(data / f"queries{end}.jsonl").read_text("utf-8") for end in ("", "_dev")]
    (place / "queries.jsonl").write_text("".join(queries), "utf-8")
    shutil.copy(data / "qrels.tsv", place / "qrels" / "test.tsv")
    shutil.copy(data / "qrels_dev.tsv", place / "qrels" / "dev.tsv")
    return place


if __name__ == "__main__":
    main()
