"""The speed of rag_opt, each figure a ratio measured side by side in one run: `nox -s bench [-- --quick]`.

Figures go to figures.json and, as a table, into README.md between its two markers. A row can be measured alone:
`nox -s bench -- --rows warm,help`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rows import HERE, ROOT, ROWS, Figure, Setup, say

BEGIN, END = "<!-- figures: made by bench.py -->", "<!-- end of figures -->"
PACKAGES = ("optuna", "haystack-ai", "sentence-transformers", "torch", "bm25s", "chromadb", "mlflow", "hydra-core")


def machine() -> str:
    """The processor, its cores and memory, Python, and the versions of what matters."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split("\t: ", 1) for line in about.splitlines() if "\t: " in line)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in about]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = "a GPU is used" if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    processor = lines.get("model name", platform.processor()).strip()
    return (
        f"{processor}, {os.cpu_count()} cores ({', '.join(flags)}), {memory:.0f} GiB, {gpu}; "
        f"CPython {platform.python_version()}; {versions}"
    )


def table(figures: Sequence[dict]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | target | median | rounds (least to greatest) | |", "| --- | --- | --- | --- | --- |"]
    for figure in figures:
        values, unit = figure["values"], figure["unit"]
        middle = f"**{number(statistics.median(values))}** {unit}".strip()
        spread = f"{len(values)} ({number(min(values))} to {number(max(values))})"
        lines.append(f"| {figure['what']} | {figure['target']} | {middle} | {spread} | {figure['detail']} |")
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def written(out: Path, setup_name: str, measured: dict[str, list[Figure]]) -> None:
    """Add rows to figures.json, and make the README's table from it."""
    path = out / "figures.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {"rows": {}}
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    for row, figures in measured.items():
        known["rows"][row] = {
            "date": now,
            "setup": setup_name,
            "figures": [{**vars(figure), "values": list(figure.values)} for figure in figures],
        }
    known["machine"] = machine()
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", "utf-8")
    ordered = [known["rows"][row] for row in ROWS if row in known["rows"]]
    figures = [figure for row in ordered for figure in row["figures"]]
    dates = sorted({row["date"] for row in ordered})
    names = sorted({row["setup"] for row in ordered})
    head = f"Measured {', '.join(dates)} ({', '.join(names)} setup) on {known['machine']}."
    readme = out / "README.md"
    text = readme.read_text("utf-8") if readme.exists() else f"# Speed\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{head}\n\n{table(figures)}\n\n{END}{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and few; writes to a folder of its own")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--stock-rounds", type=int, default=None, help="of row warm, minutes each")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RAG_OPT_DATA", ROOT.parent / "shared" / "data"))
    )
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args(arguments)
    chosen = given.rows.split(",")
    if unknown := set(chosen) - set(ROWS):
        parser.error(f"--rows: {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")
    if not (given.data / "msmarco_qa").is_dir():
        parser.error(f"{given.data}: no folder msmarco_qa (a BEIR folder of MS MARCO); name its parent with --data")
    out = given.out or (HERE / "quick" if given.quick else HERE)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rag_opt-bench-") as work:
        setup = (Setup.quick if given.quick else Setup)(given.data, Path(work))
        if given.rounds:
            setup = replace(setup, rounds=given.rounds)
        if given.stock_rounds:
            setup = replace(setup, stock_rounds=given.stock_rounds)
        for row in chosen:
            start = time.perf_counter()
            figures = ROWS[row](setup)
            written(out, "quick" if given.quick else "full", {row: figures})
            say(f"{row} ({time.perf_counter() - start:.0f} s)")
            for figure in figures:
                aim = f" (target {figure.target})" if figure.target else ""
                say(f"  {figure.what}: {number(figure.median)} {figure.unit}{aim} {figure.detail}")


if __name__ == "__main__":
    main()
