"""What a watch tells other programs: numbers for Prometheus, an alarm for a webhook."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpcore
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from rag_opt.console.screens import report_line
from rag_opt.errors import ConfigError, StoreError
from rag_opt.production.watch_page import render_watch
from rag_opt.system.same_origin import NAMES
from rag_opt.tracking.failures import shorten_error

if TYPE_CHECKING:
    from pathlib import Path

    from rag_opt.production.watching import Watch

SECONDS = 10.0
"""How long a webhook may take."""


def check_webhook(url: str) -> None:
    """Raise ConfigError unless an alarm may be sent there: by https, or to this machine; "" is nowhere."""
    parts = urlsplit(url)
    if url and not (
        parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in NAMES))
    ):
        raise ConfigError("--webhook: https, or http on this machine, is expected, such as https://example.org/alarm")


def build_alarm(found: Watch) -> dict[str, Any]:
    """An alarm as plain containers; no question is in it."""
    rows = [
        {"watched": each.name, "values": each.count, "mean": each.mean, "evidence": each.drift.reached}
        for each in found.alarms
    ]
    return {"model": found.model, "alpha": found.alpha, "alarms": rows}


def post_alarm(found: Watch, url: str) -> None:
    """Send an alarm; where that fails it is said, and the command's status tells all the same."""
    try:
        with httpcore.ConnectionPool() as pool:
            answer = pool.request(
                "POST",
                url,
                headers={"content-type": "application/json"},
                content=json.dumps(build_alarm(found)).encode(),
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)},
            )
        # A redirect is a failure: httpcore follows none, and it could lead where `check_webhook` forbids.
        if answer.status >= 300:
            report_line(f"--webhook: the alarm was answered with status {answer.status}")
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        report_line(f"--webhook: the alarm could not be sent: {shorten_error(error)}")


def write_page(found: Watch, path: Path) -> None:
    """Leave a page with tables and plots; raises StoreError where that can't be."""
    try:
        path.write_text(render_watch(found), "utf-8")
    except OSError as error:
        raise StoreError(f"--page {path}: it can't be written: {error.strerror}") from error


def write_prometheus(found: Watch, path: Path) -> None:
    """Leave the numbers in a file, written in one step; raises StoreError where that can't be."""
    registry = CollectorRegistry()
    labels = ("model",)
    known = {
        "rag_opt_watch_questions": float(len(found.observations)),
        "rag_opt_watch_failed": float(sum(row.failed for row in found.observations)),
        "rag_opt_watch_empty": float(sum(not row.hits and not row.failed for row in found.observations)),
        "rag_opt_watch_alarms": float(len(found.alarms)),
    }
    for name, value in known.items():
        Gauge(name, name.replace("_", " "), labels, registry=registry).labels(found.model).set(value)
    seconds = Gauge("rag_opt_watch_seconds", "seconds by part", (*labels, "part", "quantile"), registry=registry)
    for part in ("", *found.parts):
        for quantile, value in zip(("0.5", "0.95", "0.99"), found.get_percentiles(part), strict=True):
            if not math.isnan(value):
                seconds.labels(found.model, part or "whole", quantile).set(value)
    evidence = Gauge(
        "rag_opt_watch_evidence", "what betting on a change has won", (*labels, "watched"), registry=registry
    )
    for stream in found.streams:
        evidence.labels(found.model, stream.name).set(stream.drift.reached)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise StoreError(f"--prometheus {path}: it can't be written: {error.strerror}") from error
