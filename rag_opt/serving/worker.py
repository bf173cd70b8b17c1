"""A process of a service: its models loaded, its journal opened, its application built."""

from __future__ import annotations

import os
from pathlib import Path

from rag_opt.serving.admission import Admission
from rag_opt.serving.app import build_app
from rag_opt.serving.deployment import Deployment, load_deployment
from rag_opt.serving.guard import Guard
from rag_opt.serving.journal import Journal
from rag_opt.serving.keys import Keys
from rag_opt.serving.metrics import ServiceMetrics
from rag_opt.serving.service import Service
from rag_opt.serving.settings import ServerSettings
from rag_opt.system.environment import use_threads


def create_app() -> Guard:
    """The application of one of several processes, which the environment tells what to serve."""
    settings = ServerSettings.from_environment()
    # They share the machine: each with all of its cores would stand in the others' way.
    use_threads(max(1, (os.cpu_count() or 1) // settings.workers))
    return build_service(settings, load_deployment(settings))


def build_service(settings: ServerSettings, deployment: Deployment) -> Guard:
    """The application of a service with these models."""
    metrics, admission = ServiceMetrics(), Admission(settings.at_once, settings.waiting, settings.limit)
    journal = Journal(Path(settings.state)) if settings.traces > 0 else None
    service = Service(deployment, admission, metrics, settings.timeout, journal, settings.traces)

    def close() -> None:
        if journal is not None:
            journal.close()

    return build_app(service, settings, Keys.from_environment(), close)
