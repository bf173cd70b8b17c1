"""What a service tells Prometheus; of several processes all together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

if TYPE_CHECKING:
    from rag_opt.production.answering import Answer

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus_client reads when it is imported: where processes of one service put their numbers."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServiceMetrics:
    """The service's counters, gauges and histograms."""

    def __init__(self) -> None:
        # The library's own registry takes each name once a process, and there may be several services in one.
        self.registry = CollectorRegistry()
        known = self.registry
        self.requests = Counter("rag_opt_requests", "requests answered", ("path", "status", "arm"), registry=known)
        self.seconds = Histogram(
            "rag_opt_request_seconds", "seconds from request to answer", ("path",), buckets=SECONDS, registry=known
        )
        self.stages = Histogram(
            "rag_opt_stage_seconds",
            "seconds of a part of the pipeline",
            ("stage", "arm"),
            buckets=SECONDS,
            registry=known,
        )
        self.tokens = Counter("rag_opt_tokens", "tokens read and written by models", ("kind", "arm"), registry=known)
        self.cost = Counter(
            "rag_opt_cost_usd", "dollars for models, where their price is known", ("arm",), registry=known
        )
        self.empty = Counter("rag_opt_empty_retrievals", "questions that found nothing", ("arm",), registry=known)
        self.errors = Counter("rag_opt_errors", "questions that failed", ("arm",), registry=known)
        self.feedback = Counter("rag_opt_feedback", "thumbs", ("thumb",), registry=known)
        # Of the processes that live: what a dead one was at is under way no more.
        self.running = Gauge("rag_opt_running", "questions under way", multiprocess_mode="livesum", registry=known)
        self.waiting = Gauge(
            "rag_opt_waiting", "questions that wait for their turn", multiprocess_mode="livesum", registry=known
        )
        # All processes read one journal, so these are not added up.
        self.unsent = Gauge(
            "rag_opt_traces_unsent", "traces that MLflow has not taken yet", multiprocess_mode="max", registry=known
        )

        self.lost = Gauge(
            "rag_opt_traces_lost", "traces that the disk was too slow for", multiprocess_mode="livesum", registry=known
        )

    def count_answer(self, answer: Answer, arm: str) -> None:
        """Count what an answer took and cost."""
        for stage, seconds in answer.seconds.items():
            self.stages.labels(stage, arm).observe(seconds)
        self.tokens.labels("read", arm).inc(answer.spent.tokens_in)
        self.tokens.labels("written", arm).inc(answer.spent.tokens_out)
        # nan, of an unknown price, is not above 0 either: it would make the sum nan for good.
        if answer.spent.usd > 0:
            self.cost.labels(arm).inc(answer.spent.usd)
        if not answer.sources:
            self.empty.labels(arm).inc()

    def render(self) -> bytes:
        """All numbers in Prometheus' text format."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        found = CollectorRegistry()
        # What each process has counted lies in files, which this reads.
        multiprocess.MultiProcessCollector(found)  # type: ignore[no-untyped-call]
        return generate_latest(found)
