"""Traces that are exported: by the protocol that the environment names, and kept in MLflow whatever comes of that."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rag_opt.tracking import traces
from rag_opt.tracking.traces import ENVIRONMENT, PROTOCOLS, Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
SET = (ENDPOINT, *PROTOCOLS, *ENVIRONMENT, "MLFLOW_ENABLE_OTLP_EXPORTER")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An address that takes traces by HTTP, and the content types of those it got."""
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append(str(self.headers["Content-Type"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    server.shutdown()
    server.server_close()


@pytest.fixture
def tracing(monkeypatch) -> Iterator[None]:
    """An environment without a word about traces, and MLflow's tracing made anew in it, and again afterwards."""
    from mlflow.tracing.provider import reset

    for name in SET:
        monkeypatch.setenv(name, "")
        del os.environ[name]
    reset()
    yield
    reset()


def traced(folder: Path) -> int:
    """How many traces MLflow has after one was written."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    tracer = Tracer.create(client, client.create_experiment("traces", (folder / "files").as_uri()))
    root = client.start_trace(name="question", inputs={"question": "Who?"}, experiment_id=tracer.experiment_id)
    client.end_trace(root.trace_id, outputs={"answer": "Ada"})
    tracer.flush()
    return len(client.search_traces(locations=[tracer.experiment_id]))


def test_traces_by_http_arrive_and_are_kept(tmp_path: Path, tracing: None, collector, monkeypatch, said) -> None:
    url, got = collector
    monkeypatch.setenv(ENDPOINT, url)
    monkeypatch.setenv(PROTOCOLS[0], "http/protobuf")
    assert traced(tmp_path) == 1
    from mlflow.tracing.provider import provider

    provider.get().force_flush()
    assert got == ["application/x-protobuf"]
    assert said() == []


@pytest.mark.parametrize(("protocol", "told"), [("http/json", "Unsupported OTLP protocol"), ("http/protobuf", "HTTP")])
def test_traces_that_can_not_be_exported_are_kept_and_that_is_said(
    tmp_path: Path, tracing: None, monkeypatch, said, protocol: str, told: str
) -> None:
    import sys

    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9/v1/traces")
    monkeypatch.setenv(PROTOCOLS[1], protocol)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert traced(tmp_path) == 1
    (line,) = said()
    assert line.startswith("traces are kept in MLflow, but not exported: ")
    assert told in line


def test_what_a_kill_has_cut_short_is_made_whole(
    tmp_path: Path, tracing: None, animals: list[str], monkeypatch
) -> None:
    from mlflow import MlflowClient

    from rag_opt.cache.store import Store
    from rag_opt.components.resources import Resources
    from rag_opt.config.compose import compose_config
    from rag_opt.config.trial import compose_trial
    from rag_opt.evaluation.evaluate import Questions
    from rag_opt.evaluation.evaluator import load_dataset
    from rag_opt.evaluation.pipelines import build_pipeline

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    tracer = Tracer.create(client, client.create_experiment("traces", (tmp_path / "files").as_uri()))
    run = client.create_run(tracer.experiment_id).info.run_id
    words = [*animals, "retriever=bm25"]
    questions = Questions.from_dataset(load_dataset(compose_config(words)), 1, 0)
    pipeline = build_pipeline(compose_trial(words), Resources.from_store(Store(tmp_path / "store")))
    whole = tracer._trace_question
    done: list[str] = []

    def trace_some(*given) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        whole(*given)
        done.append(given[3].id)

    monkeypatch.setattr(tracer.__class__, "_trace_question", lambda _, *given: trace_some(*given))
    with pytest.raises(KeyboardInterrupt):
        tracer.write_traces(pipeline, questions, {}, run)
    monkeypatch.undo()
    # Less than there are: what is known comes in several pages.
    monkeypatch.setattr(traces, "PAGE", 2)
    for _ in range(2):
        tracer.flush()
        assert tracer.write_traces(pipeline, questions, {}, run) == questions.count
    tracer.flush()
    written = client.search_traces(locations=[tracer.experiment_id], run_id=run)
    assert sorted(trace.info.tags["query_id"] for trace in written) == sorted(q.id for q in questions.queries.items)
