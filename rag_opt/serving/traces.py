"""A journal's records → MLflow's traces and feedback, whenever MLflow takes them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import AssessmentSource, AssessmentSourceType, Span, TraceInfo, TraceLocation, TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from rag_opt.console.screens import report_line
from rag_opt.production.asked import THUMBS
from rag_opt.production.bundle import BUNDLE
from rag_opt.production.registry import ADDRESS
from rag_opt.production.traces import VERSION, name_experiment
from rag_opt.tracking.failures import shorten_error
from rag_opt.tracking.traces import LONGEST, SHOWN

if TYPE_CHECKING:
    from rag_opt.production.registry import Registry
    from rag_opt.serving.journal import Journal

ARM, WHO, ERROR = "rag_opt.arm", "rag_opt.who", "rag_opt.error"
"""A trace's tags, beside the version."""

QUESTION = "question"

ENVIRONMENT = {
    # Failures are to be seen soon: what could not be sent stays in the journal.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where a trace is not there any more."""

EVERY, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two looks into the journal; after failures up to so many."""

PRUNING = 60.0
"""Seconds between two prunings, which read all that is kept."""


class TraceSender:
    """Sends what a journal holds to the experiment of a model."""

    def __init__(self, journal: Journal, registry: Registry, experiment: str) -> None:
        self.journal, self.registry, self.experiment = journal, registry, experiment
        self._known_down = False
        # Opening a journal has pruned it.
        self._pruned = time.monotonic()

    def run(self, ending: threading.Event) -> None:
        """Send until it is to end, then what is left if MLflow takes it; an outage makes looks rarer."""
        wait = EVERY
        while True:
            ended = ending.is_set()
            sent = self.try_send()
            if ended and not sent:
                return
            wait = min(LONGEST_WAIT, 2 * wait) if sent is None else EVERY
            # After a batch more may be waiting already.
            if not sent:
                ending.wait(wait)

    def try_send(self) -> int | None:
        """Send a batch, and give how much that was; None where MLflow does not take it, which is said once."""
        try:
            if time.monotonic() > self._pruned + PRUNING:
                self.journal.prune()
                self._pruned = time.monotonic()
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
        traces = self.journal.find_unsent()
        if traces:
            place, client = self.registry.find_experiment(self.experiment), TracingClient(self.registry.uri)
            for name, record in traces:
                self._send_trace(client, place, name, record)
        thumbs = self.journal.find_feedback()
        for number, trace, record in thumbs:
            try:
                log_feedback(trace, record)
            except MlflowException as error:
                # A trace that somebody has deleted holds up no other thumb.
                if error.error_code not in GONE:
                    raise
            self.journal.mark_feedback_sent(number)
        return len(traces) + len(thumbs)

    def _send_trace(self, client: TracingClient, place: str, name: str, record: Mapping[str, Any]) -> None:
        try:
            self.journal.mark_sent(name, write_trace(client, place, name, record))
        except (KeyError, TypeError, ValueError) as error:
            # What can't be read now never will be.
            report_line(f"request {name} becomes no trace: {shorten_error(error)}")
            self.journal.drop(name)


def get_experiment(model: str) -> str:
    """The experiment that has the traces of a model: its own; of a study's folder that of its name."""
    found = ADDRESS.fullmatch(model)
    if found:
        return name_experiment(found["name"])
    # Of a study's folder its bundle is served, which lies in it under this name.
    parts = [part for part in Path(model).resolve().parts if part != BUNDLE]
    return name_experiment(parts[-1])


def write_trace(client: TracingClient, experiment: str, name: str, record: Mapping[str, Any]) -> str:
    """The id of a trace with what one request found and said, part by part, as MLflow's judges read it.

    It is made of the request's own, so that one which was half written before a kill is written over. By the client
    that MLflow's exporter works with: two calls, and what fails is raised, where the exporter would log it.
    """
    trace = f"tr-{name}"
    # Spans first: until it has its tags, no reader here takes it for a trace of a model.
    client.log_spans(experiment, [Span.from_dict(each) for each in build_spans(trace, record)])
    usage = {"input_tokens": record["tokens_in"], "output_tokens": record["tokens_out"]}
    client.start_trace(
        TraceInfo(
            trace_id=trace,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=int(record["at"] * 1e3),
            state=TraceState.ERROR if record["error"] else TraceState.OK,
            request_preview=record["question"][:LONGEST],
            response_preview=(record["error"] or record["answer"])[:LONGEST],
            client_request_id=name,
            execution_duration=int(record["total"] * 1e3),
            trace_metadata={
                "mlflow.trace_schema.version": "3",
                "mlflow.traceInputs": json.dumps({"question": record["question"]}),
                "mlflow.traceOutputs": json.dumps({"answer": record["answer"]}),
                "mlflow.trace.tokenUsage": json.dumps({**usage, "total_tokens": sum(usage.values())}),
            },
            tags={
                ARM: record["arm"],
                VERSION: record["version"],
                WHO: record["who"],
                "mlflow.traceName": QUESTION,
                ERROR: record["error"],
            },
        )
    )
    return trace


def build_spans(trace: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of a record as MLflow reads them: the question, each part of the pipeline, the sources."""
    start = int(record["at"] * 1e9)
    # The shape in which MLflow's judges find contexts; in {"documents": …} they find none.
    found = [
        {"page_content": each["text"][:LONGEST], "metadata": {"doc_uri": each["id"], "score": each["score"]}}
        for each in record["sources"][:SHOWN]
    ]
    told = {"usd": record["usd"], "total": record["total"], "seconds": record["seconds"]}
    rows: list[tuple[Any, ...]] = [
        (QUESTION, "CHAIN", {"question": record["question"]}, {"answer": record["answer"]}, record["total"], told),
        ("sources", "RETRIEVER", {"question": record["question"]}, found, 0.0, {}),
    ]
    rows += [(part, "TOOL", None, None, seconds, {}) for part, seconds in record["seconds"].items()]
    # Parts work one after the other, and of each only its seconds are recorded.
    moment = start
    for place, (name, kind, inputs, outputs, seconds, more) in enumerate(rows, 1):
        begin = moment if kind == "TOOL" else start
        end = begin + max(1, int(seconds * 1e9))
        moment = end if kind == "TOOL" else moment
        attributes = {
            "mlflow.traceRequestId": trace,
            "mlflow.spanType": kind,
            "mlflow.spanInputs": inputs,
            "mlflow.spanOutputs": outputs,
            **{f"rag_opt.{key}": value for key, value in more.items()},
        }
        yield {
            "trace_id": trace,
            # Eight bytes in hex; from 1, since OpenTelemetry takes an id of zeros for none.
            "span_id": f"{place:016x}",
            "parent_span_id": None if place == 1 else f"{1:016x}",
            "name": name,
            "start_time_unix_nano": begin,
            "end_time_unix_nano": end,
            "status": {"code": "ERROR" if record["error"] and place == 1 else "OK", "message": ""},
            "attributes": {key: json.dumps(value) for key, value in attributes.items() if value is not None},
        }


def log_feedback(trace: str, record: Mapping[str, Any]) -> None:
    """A thumb on its trace."""
    source = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id=record["who"] or "unknown")
    mlflow.log_feedback(
        trace_id=trace,
        name=THUMBS,
        value=record["thumb"] == "up",
        rationale=record["comment"] or None,
        source=source,
    )
