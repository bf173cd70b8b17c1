"""The figures of a run of the tests of faults → studies/faults/README.md: `python table.py figures.jsonl`."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROMISES = {
    "no finished trial is lost": "≥ 200 SIGKILLs, SQLite and PostgreSQL, fsynced ledger: 0 lost, 0 changed",
    "no zombie": "0 RUNNING after one resume, also for kills before the first sign of life",
    "each slot runs once": "8 processes, 100 enqueued, 10 repeats: 0 double runs, 0 dead workers",
    "exact total": "1, 3, 8 workers with kills: COMPLETE + PRUNED = n_trials; a resume at the target runs 0",
    "retries": "a configuration that kills its process is tried retries times more, then given up and listed",
    "resume = uninterrupted (one worker)": "parameters bit-equal after kills at 3 points: TPE, GP, QMC, random",
    "a live worker is not declared dead": "stalls of 4 × grace (GIL held, SIGSTOP): 0 false FAIL, 0 worker deaths",
    "many writers": "16 processes × 30 trials: 480 of 480, values right",
    "first start": "8 commands at once on nothing: 8 alive, 10 repeats",
    "one machine or many": "folders and stores of their own, PostgreSQL between them: one study",
    "storage faults": "8 faults of files and servers: named errors or recoveries, 0 silent",
    "objective faults": "≥ 25 values and exceptions, ends of the process among them: the study goes on",
    "MLflow mirrors Optuna": "after kills and a 30 s outage: runs = trials, all linked, statuses true, 0 RUNNING",
    "a disk that fills": "3 failures in a row stop the study; none takes a place, the same command makes all of them",
    "a model's server that is out of order": "the same with a server at 503",
    "a lost study file": "removed, moved or replaced under a running study: noticed, 0 trials lost",
    "the same measure for every configuration": "≥ 200 configurations: as ir_measures has it, whatever is handed on",
    "what is selected is never dominated": "400 simulated studies: 0 dominated, both ends of the front confirmed",
    "latency is the pipeline's": "first calls of up to 900 s in every trial: in no reported latency",
    "nothing configured is dropped": "≥ 400 useless, misspelt or misplaced components: refused before trial 0",
    "preflight": "≥ 15 models and services that can't be used: each named before trial 0, 0 trials begun",
    "a budget counts what is paid": "kept replies end nothing; what is paid ends it within the calls under way",
    "lost scores": "trials/ removed, in part or whole: the same findings",
    "a copy of study.db is a study": "the file alone, also of a running study: it goes on with all that was told",
    "one moment": "trials that others add while a report is made: not in it",
    "a stopped process holds a lock": "who waits says for whom within 2 s, and ends at Ctrl-C and SIGTERM",
    "pipelines of one's own": "≥ 30 hostile files and factories refused, no effect; 20 broken ones said before trial 0",
    "a command that is ended gives its trial back": "a closed pipe, SIGHUP: the status that a shell expects, 0 RUNNING",
    "shared folders": "files as the umask says; who may not write one is told whose it is",
    "engine death": "Dask, 2 workers, 5 kills, the command once: COMPLETE = target, 0 measured twice",
    "cache writes": "50 kills during indexing: 0 half-built artifacts used",
    "bad input": "≥ 60 datasets and ≥ 40 configurations: refused before trial 0 with file, line or key and what to do",
    "secrets": "12 planted canaries: 0 found in whatever a study leaves",
    "code from configuration": "≥ 30 hostile configurations: refused, no side effect",
    "texts of others at a terminal": "escapes and presigned addresses in ids, titles, file names, answers: 0 raw",
    "tags in prompts": "≥ 1,000 spellings of a prompt's tags in documents, questions, replies: 0 open or close one",
    "a prompt too long": "beyond llm.window not sent; where that is not known, said",
    "bombs": "aliases, interpolations, brackets that stand for more than memory holds: refused by name, at once",
    "code from data": "no pickle, eval, unsafe YAML; poisoned databases, stores, indexes: refused or made again",
    "paths": "≥ 40 names: 0 files outside the roots",
    "network": "nothing leaves the machine in a default run; telemetry off",
    "dashboard": "foreign Host 403, cross-origin write 403, MLflow's too; odd paths 4xx; loopback only",
}

HEAD = """# What holds when things go wrong

Every row is a test in [tests/faults](../../tests/faults); `nox -s faults` runs the long versions and writes this
table, the default tests run a short one of each. Last full run: {when}, {cores} cores, {system}, CPython {python}.

| promise | figure aimed at | found |
| --- | --- | --- |
"""


def main() -> None:
    """Write the table; a promise without a figure says so."""
    found: dict[str, list[str]] = {}
    for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["promise"], []).append(row["found"])
    unknown = set(found) - set(PROMISES)
    if unknown:
        raise SystemExit(f"no such promise: {', '.join(sorted(unknown))}")
    about = {
        "when": f"{datetime.now(UTC):%d %B %Y}",
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    rows = [
        f"| {promise} | {aim} | {'<br>'.join(dict.fromkeys(found.get(promise, ['not measured in this run'])))} |"
        for promise, aim in PROMISES.items()
    ]
    (HERE / "README.md").write_text(HEAD.format(**about) + "\n".join(rows) + "\n" + TAIL.read_text("utf-8"), "utf-8")


TAIL = HERE / "notes.md"

if __name__ == "__main__":
    main()
