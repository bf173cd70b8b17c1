"""Indexes in document stores: exact search is their measure, nobody shares documents, nothing is half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.trial import compose_trial
from rag_opt.errors import RagOptError
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.scores import Evaluation
from tests.conftest import ROOT

pytestmark = pytest.mark.integration
METRICS = ("nDCG@10", "index_recall", "index_size")


@pytest.fixture
def connection(pgvector, monkeypatch: pytest.MonkeyPatch) -> str:
    url = pgvector.database(f"db_{os.getpid()}_{time.monotonic_ns()}")
    monkeypatch.setenv("PG_CONN_STR", url)
    return str(url)


def measure(words: list[str], store: Store) -> Evaluation:
    from rag_opt.config.compose import compose_config
    from rag_opt.evaluation.evaluator import load_dataset

    pipeline = build_pipeline(compose_trial(words), Resources.from_store(store))
    questions = Questions.from_dataset(load_dataset(compose_config(words)), 2, 0)
    return evaluate_pipeline(pipeline, questions, [get_metric(name) for name in METRICS])


DENSE = ["retriever=dense", "splitter=sentence", "embedder=hashing", "dataset.num_queries=60"]


@pytest.mark.parametrize("index", ["qdrant", "pgvector", "pgvector index.strategy=exact_nearest_neighbor", "chroma"])
def test_an_index_finds_what_exact_search_finds(index: str, connection: str, store: Store) -> None:
    """On the packaged questions; an approximate one may miss as much as it says."""
    exact = measure([*DENSE, "index=exact"], store)
    found = measure([*DENSE, *f"index={index}".split()], store)
    assert exact.means["index_recall"] == 1.0
    assert found.means["index_recall"] >= (0.99 if "exact" in index or index == "qdrant" else 0.97)
    assert found.means["nDCG@10"] == pytest.approx(exact.means["nDCG@10"], abs=0.005)
    assert found.means["index_size"] > 0


@pytest.mark.parametrize("distance", ["inner_product", "l2_distance"])
def test_any_distance_of_pgvector_orders_alike(distance: str, connection: str, store: Store) -> None:
    exact = measure([*DENSE, "index=exact"], store)
    found = measure(
        [*DENSE, "index=pgvector", "index.strategy=exact_nearest_neighbor", f"index.distance={distance}"], store
    )
    assert found.means["index_recall"] > 0.99
    assert found.means["nDCG@10"] == pytest.approx(exact.means["nDCG@10"], abs=0.005)


def test_a_greater_ef_finds_more_and_writes_nothing_again(connection: str, store: Store) -> None:
    words = [*DENSE, "index=pgvector", "index.m=4", "index.ef_construction=8"]
    few = measure([*words, "index.ef_search=12", "retriever.depth=10"], store)
    many = measure([*words, "index.ef_search=400", "retriever.depth=10"], store)
    assert few.means["index_recall"] <= many.means["index_recall"]
    assert store.misses["indexes in document stores"] == 1


def test_a_package_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    from rag_opt.components.retrievers import store_index
    from rag_opt.config.trust import import_target

    def missing(name: str) -> Any:
        return import_target(name.replace("qdrant", "nobodys"))

    monkeypatch.setattr(store_index, "import_target", missing)
    with pytest.raises(RagOptError, match="needs the package 'qdrant-haystack': pip install qdrant-haystack"):
        measure([*DENSE, "index=qdrant"], store)


def test_a_server_that_can_not_be_reached_is_said(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("PG_CONN_STR", "postgresql://me:very-secret@127.0.0.1:9/none")
    with pytest.raises(RagOptError, match="PgvectorDocumentStore can't be reached") as error:
        measure([*DENSE, "index=pgvector"], store)
    assert "very-secret" not in str(error.value)


# ---- kills

WRITING = """
import sys
from pathlib import Path
from rag_opt.cache.store import Store
from tests.integration.test_document_stores import measure
measure(sys.argv[2:], Store(Path(sys.argv[1])))
"""


@pytest.mark.long
def test_kills_while_indexing_leave_nothing_half_written(connection: str, tmp_path: Path, long: bool) -> None:
    words = [*DENSE, "index=pgvector"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PG_CONN_STR": connection}
    wanted = measure([*DENSE, "index=exact"], Store(tmp_path / "exact"))
    killed = 0
    for turn in range(20 if long else 3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path / "store"), *words], env=environment, start_new_session=True
        )
        _wait_for_rows(connection, turn, process)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    found = measure(words, Store(tmp_path / "store"))
    assert found.means["nDCG@10"] == pytest.approx(wanted.means["nDCG@10"], abs=0.005)


def _wait_for_rows(connection: str, turn: int, process: subprocess.Popen[bytes]) -> None:
    """Until the index has other rows than before, and a moment that differs from turn to turn."""
    before, end = _count_rows(connection), time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None and _count_rows(connection) in (before, 0):
        time.sleep(0.01)
    time.sleep(0.05 * (turn % 4))


def _count_rows(connection: str) -> int:
    import psycopg

    with psycopg.connect(connection, autocommit=True) as base:
        rows = base.execute("select tablename from pg_tables where tablename like 'rag_opt_%'").fetchall()
        # What its writer holds for itself is looked at in the next moment.
        base.execute("set lock_timeout = '200ms'")
        try:
            return int(base.execute(f'select count(*) from "{rows[0][0]}"').fetchone()[0]) if rows else 0
        except psycopg.errors.LockNotAvailable:
            return 0


# ---- OpenSearch and Elasticsearch, whose servers no package here brings: what their clients say is answered as they do


class Searching(BaseHTTPRequestHandler):
    """As much of both servers as writing, counting and nearest neighbours need; vectors are compared one by one."""

    kept: ClassVar[dict[str, dict[str, Any]]] = {}
    seen: ClassVar[list[str]] = []
    product = "Elasticsearch"

    def _answer(self, body: Any, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("X-Elastic-Product", self.product)):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        place = urlsplit(self.path)
        parts = [each for each in place.path.split("/") if each]
        self.seen.append(f"{self.command} {place.path}")
        if "_bulk" in parts:
            self._bulk(raw, parts[0] if parts[0] != "_bulk" else None)
        elif "_search" in parts:
            self._search(json.loads(raw), parts[0], parse_qs(place.query))
        elif "_count" in parts:
            self._answer({"count": len(self.kept.get(parts[0], {}))})
        elif "_delete_by_query" in parts:
            self.kept[parts[0]] = {}
            self._answer({"deleted": 1})
        elif self.command == "HEAD":
            self._answer({}, 200 if not parts or parts[0] in self.kept else 404)
        elif not parts:
            version = {"number": "8.19.0", "distribution": "opensearch", "lucene_version": "9"}
            self._answer({"version": version, "tagline": "You Know, for Search", "name": "x", "cluster_name": "x"})
        else:
            self.kept.setdefault(parts[0], {})
            self._answer({"acknowledged": True, parts[0]: {"mappings": {"properties": {}}}})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _handle  # noqa: N815 (the names that http.server calls)

    def _bulk(self, raw: str, index: str | None) -> None:
        lines = [json.loads(line) for line in raw.splitlines() if line]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            ((kind, about),) = action.items()
            self.kept.setdefault(about.get("_index") or index, {})[about["_id"]] = document
            items.append({kind: {"_id": about["_id"], "status": 201, "result": "created"}})
        self._answer({"errors": False, "took": 1, "items": items})

    def _search(self, body: dict[str, Any], index: str, asked: dict[str, list[str]]) -> None:
        import numpy as np

        def find(node: Any) -> Any:
            if isinstance(node, dict):
                for key in ("vector", "query_vector"):
                    if isinstance(node.get(key), list):
                        return node[key]
                node = list(node.values())
            return (
                next((found for each in node if (found := find(each)) is not None), None)
                if isinstance(node, list)
                else None
            )

        rows, query = list(self.kept[index].items()), np.array(find(body))
        scores = [float(np.dot(row["embedding"], query)) for _, row in rows]
        first, size = int(body.get("from") or 0), int(body.get("size") or asked.get("size", ["10"])[0])
        # Equal scores in the order of the rows; of Elasticsearch only so many as `k` says.
        order = np.lexsort((np.arange(len(scores)), -np.array(scores)))[: body.get("knn", {}).get("k", len(scores))]
        hits = [
            {"_id": rows[at][0], "_score": scores[at], "_source": rows[at][1]} for at in order[first : first + size]
        ]
        self._answer({"took": 1, "timed_out": False, "hits": {"hits": hits, "total": {"value": len(order)}}})

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def searching() -> Any:
    Searching.kept, Searching.seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Searching)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("index", ["opensearch", "elasticsearch"])
def test_the_clients_of_both_search_servers_are_spoken_to(
    index: str, searching: str, store: Store, animals: list[str]
) -> None:
    words = [*animals, "retriever=dense", "retriever.depth=6"]
    exact = measure([*words, "index=exact"], store)
    found = measure([*words, f"index={index}", f"index.hosts={searching}"], store)
    assert found.retrieved == exact.retrieved
    assert any("_bulk" in line for line in Searching.seen)
    again = len([line for line in Searching.seen if "_bulk" in line])
    measure([*words, f"index={index}", f"index.hosts={searching}", "retriever.top_k=3"], Store(store.root))
    assert len([line for line in Searching.seen if "_bulk" in line]) == again


@pytest.fixture
def long() -> bool:
    from tests.conftest import LONG

    return LONG


@pytest.mark.long
def test_what_is_in_stores_is_listed_and_removed(connection: str, tmp_path: Path) -> None:
    import psycopg

    # In another process: what a living one may use stays.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PG_CONN_STR": connection, "COLUMNS": "200"}
    command = [sys.executable, "-c", WRITING, str(tmp_path / "store"), *DENSE, "index=pgvector"]
    subprocess.run(command, env=environment, check=True)

    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "rag_opt.store", *words, f"store.path={tmp_path}/store"],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout

    assert "PgvectorDocumentStore" in run("show")
    # A server that is down keeps what it has, and it stays known.
    environment["PG_CONN_STR"] = "postgresql://127.0.0.1:9/none"
    assert "stays" in run("prune", "--limit-gb", "0")
    environment["PG_CONN_STR"] = connection
    assert "PgvectorDocumentStore" in run("show")
    run("prune", "--limit-gb", "0")
    with psycopg.connect(connection) as base:
        assert base.execute("select tablename from pg_tables where tablename like 'rag_opt_%'").fetchall() == []
    assert "PgvectorDocumentStore" not in run("show")
