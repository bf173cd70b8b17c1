"""The figures of a model that is tuned again and rolled back; parts of make.py beside this file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROUNDS, ASKED = 20, 100
CLIENTS, ROLLBACKS = 10, 5
RECORD = {
    "answer": "",
    "seconds": {},
    "total": 0.02,
    "tokens_in": 0,
    "tokens_out": 0,
    "usd": None,
    "arm": "model",
    "who": "",
    "error": "",
    "sources": [],
}


def measure_false_promotions() -> dict[str, object]:
    """The model tuned again 20 times on 100 fresh questions each, whose relevant document is drawn at random: no
    configuration is better than another one, whatever the search has found."""
    import mlflow
    from mlflow.tracing.client import TracingClient

    from rag_opt.cli import retune
    from rag_opt.datasets.python_docs import load
    from rag_opt.production.promotion import promote_study
    from rag_opt.production.registry import CHALLENGER, Registry
    from rag_opt.serving.traces import write_trace

    place = Path("null").resolve()
    shutil.rmtree(place, ignore_errors=True)
    (place / "studies").mkdir(parents=True)
    shutil.copytree("studies/quick", place / "studies/quick")
    uri = f"sqlite:///{place}/mlflow.db"
    promote_study(place / "studies/quick", "null", tracking=uri)
    registry, data, chance = Registry.connect(uri), load(), random.Random(0)
    experiment, client = registry.find_experiment("served null"), TracingClient(uri)
    documents = [each.id for each in data.documents]
    outcomes, told, seconds = Counter[str](), [], []
    for turn in range(ROUNDS):
        with registry.use():
            for number in range(ASKED):
                text = f"{chance.choice(data.queries).text} ({turn}, {number})"
                known = {"question": text, "version": "models:/null/1", "at": time.time()}
                trace = write_trace(client, experiment, f"{1000 * turn + number:032x}", {**RECORD, **known})
                gold = [{"doc_uri": chance.choice(documents)}]
                mlflow.log_expectation(trace_id=trace, name="expected_retrieved_context", value=gold)
        start, output = time.perf_counter(), io.StringIO()
        with contextlib.redirect_stdout(output):
            retune.main(["models:/null", "--tracking", uri, "--studies", str(place / "studies")])
        seconds.append(time.perf_counter() - start)
        told.append(output.getvalue().splitlines()[-3:])
        found = registry.find_alias("null", CHALLENGER)
        outcomes["stays" if found is None else found.tags["rag_opt.case"]] += 1
        if found is not None:
            registry.drop_alias("null", CHALLENGER)
    (place / "told.json").write_text(json.dumps(told, indent=1))
    return {
        "times": ROUNDS,
        "fresh questions each": ASKED,
        "promoted as better": outcomes["better"],
        "promoted as tied and cheaper": outcomes["cheaper"],
        "champion stays": outcomes["stays"],
        "median seconds": round(sorted(seconds)[ROUNDS // 2], 1),
    }


def measure_rollbacks(serve: Callable[..., Any], ask: Callable[..., httpx.Response]) -> dict[str, object]:
    """Five rollbacks among 10 clients: seconds until the version before answers all, and requests that failed."""
    from rag_opt.production.canary import roll_back
    from rag_opt.production.promotion import promote_study
    from rag_opt.production.registry import CHAMPION, Registry

    uri = f"sqlite:///{Path.cwd()}/rollback.db"
    Path("rollback.db").unlink(missing_ok=True)
    for more in ([], ["retriever.k1=1.7"]):
        promote_study(Path("studies/quick"), "rolled", CHAMPION, "to be rolled back", more, uri)
    registry, ending = Registry.connect(uri), threading.Event()
    newer, older = registry.find("models:/rolled/2"), registry.find("models:/rolled/1")
    answers, failed = list[str](), list[str]()
    rolled = serve("--tracking", uri, model="models:/rolled@champion")
    with rolled as (_, client), concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:

        def work(_: int) -> None:
            while not ending.is_set():
                told = ask(client, "What is a lambda expression?")
                (answers if told.status_code == 200 else failed).append(told.json().get("model", told.text))

        work_done = [pool.submit(work, number) for number in range(CLIENTS)]
        seconds = []
        try:
            for _ in range(ROLLBACKS):
                time.sleep(2)
                start = time.perf_counter()
                roll_back(registry, newer, CHAMPION, "a figure")
                seconds.append(wait_for(client, older.version) - start)
                registry.crown(newer)
                wait_for(client, newer.version)
        finally:
            ending.set()
        for each in work_done:
            each.result()
    return {
        "times": ROLLBACKS,
        "seconds until the version before answers": [round(each, 1) for each in seconds],
        "answers meanwhile": len(answers),
        "by version": dict(Counter(answers)),
        "failed": len(failed),
    }


def wait_for(client: httpx.Client, version: str) -> float:
    """The moment at which a service answers with a version."""
    while client.get("/ready").json()["models"]["model"] != f"models:/rolled/{version}":
        time.sleep(0.02)
    return time.perf_counter()
