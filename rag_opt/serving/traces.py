"""A journal's records → MLflow's traces and feedback, whenever MLflow takes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, AssessmentSourceType, SpanType
from mlflow.entities import Document as Found

from rag_opt.console.progress import report_line
from rag_opt.tracking.failures import shorten_error
from rag_opt.tracking.traces import LONGEST, SHOWN

if TYPE_CHECKING:
    from rag_opt.production.registry import Registry
    from rag_opt.serving.journal import Journal

REQUEST, ARM, VERSION, WHO = "rag_opt.request", "rag_opt.arm", "rag_opt.version", "rag_opt.who"
"""A trace's tags."""

ENVIRONMENT = {
    # Failures are to be seen here, and soon: what could not be sent stays in the journal.
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_TRACE_USE_ISOLATED_RANDOM_ID_GENERATOR": "true",
}
EVERY, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two looks into the journal; after failures up to so many."""


class TraceSender:
    """Sends what a journal holds to the experiment of a model."""

    def __init__(self, journal: Journal, registry: Registry, experiment: str) -> None:
        self.journal, self.registry, self.experiment = journal, registry, experiment
        self._known_down = False
        self._checked = False

    def run(self, ending: threading.Event) -> None:
        """Send until it is to end, then what is left if MLflow takes it; an outage makes looks rarer."""
        wait = EVERY
        while True:
            ended = ending.is_set()
            sent = self.try_send()
            if ended and not sent:
                return
            wait = min(LONGEST_WAIT, 2 * wait) if sent is None else EVERY
            if not sent:
                ending.wait(wait)

    def try_send(self) -> int | None:
        """Send a batch, and give how much that was; None where MLflow does not take it, which is said once."""
        try:
            sent = self.send()
        except Exception as error:
            # Whatever MLflow, its server or the network may raise.
            if not self._known_down:
                report_line(f"MLflow takes no traces ({shorten_error(error)}); they are kept and sent later")
            self._known_down = True
            return None
        self._known_down = False
        return sent

    def send(self) -> int:
        """Send a batch of traces and of thumbs, and give how many there were; raises what MLflow raises."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        mlflow.set_tracking_uri(self.registry.uri)
        traces, thumbs = self.journal.find_unsent(), self.journal.find_feedback()
        if not traces and not thumbs:
            return 0
        place = self.registry.find_experiment(self.experiment)
        for name, record in traces:
            # A kill may have come between MLflow's having it and our noting that: looked up once after a start.
            known = None if self._checked else self._find_trace(place, name)
            trace = known or write_trace(self.registry.client, place, name, record)
            # MLflow tells failures of writing to its log alone.
            self.registry.client.get_trace(trace)
            self.journal.mark_sent(name, trace)
        self._checked = self._checked or bool(traces)
        for number, trace, record in self.journal.find_feedback():
            log_feedback(trace, record)
            self.journal.mark_feedback_sent(number)
        self.journal.prune()
        return len(traces) + len(thumbs)

    def _find_trace(self, place: str, name: str) -> str | None:
        wanted = f"tags.`{REQUEST}` = '{name}'"
        found = self.registry.client.search_traces(
            locations=[place], filter_string=wanted, max_results=1, include_spans=False
        )
        return str(found[0].info.trace_id) if found else None


def get_experiment(model: str) -> str:
    """The experiment that has the traces of a model: its own."""
    return f"served {model.removeprefix('models:/').partition('@')[0].partition('/')[0]}"


def write_trace(client: MlflowClient, experiment: str, name: str, record: Mapping[str, Any]) -> str:
    """The id of a trace with what one request found and said, part by part, as MLflow's judges read it."""
    start = int(record["at"] * 1e9)
    root = client.start_trace(
        name="question",
        span_type=SpanType.CHAIN,
        inputs={"question": record["question"]},
        tags={REQUEST: name, ARM: record["arm"], VERSION: record["version"], WHO: record["who"]},
        experiment_id=experiment,
        start_time_ns=start,
    )
    moment = start
    for part, seconds in record["seconds"].items():
        end = moment + max(1, int(seconds * 1e9))
        _write_span(client, root, part, SpanType.TOOL, None, moment, end)
        moment = end
    found = [
        Found(page_content=each["text"][:LONGEST], metadata={"doc_uri": each["id"], "score": each["score"]})
        for each in record["sources"][:SHOWN]
    ]
    _write_span(client, root, "sources", SpanType.RETRIEVER, found, start, moment + 1)
    usage = {"input_tokens": record["tokens_in"], "output_tokens": record["tokens_out"]}
    client.end_trace(
        root.trace_id,
        outputs={"answer": record["answer"]},
        attributes={
            "mlflow.chat.tokenUsage": {**usage, "total_tokens": sum(usage.values())},
            "rag_opt.usd": record["usd"],
            "rag_opt.total": record["total"],
            "rag_opt.seconds": record["seconds"],
        },
        status="ERROR" if record["error"] else "OK",
        end_time_ns=start + max(1, int(record["total"] * 1e9)),
    )
    return str(root.trace_id)


def log_feedback(trace: str, record: Mapping[str, Any]) -> None:
    """A thumb on its trace."""
    source = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id=record["who"] or "unknown")
    mlflow.log_feedback(
        trace_id=trace,
        name="thumbs",
        value=record["thumb"] == "up",
        rationale=record["comment"] or None,
        source=source,
    )


def _write_span(client: MlflowClient, root: Any, name: str, kind: str, outputs: Any, start: int, end: int) -> None:
    span = client.start_span(name, root.trace_id, root.span_id, span_type=kind, start_time_ns=start)
    client.end_span(root.trace_id, span.span_id, outputs=outputs, end_time_ns=end)
