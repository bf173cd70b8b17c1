"""A process of a service: its models loaded, its journal opened, its application built."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from rag_opt.console.notices import Notices
from rag_opt.console.progress import report_line
from rag_opt.production.registry import Registry
from rag_opt.serving.admission import Admission
from rag_opt.serving.app import build_app
from rag_opt.serving.deployment import Deployment, find_version, load_arm, load_deployment, replace_arm
from rag_opt.serving.guard import Guard
from rag_opt.serving.journal import Journal
from rag_opt.serving.keys import Keys
from rag_opt.serving.metrics import ServiceMetrics
from rag_opt.serving.service import Service
from rag_opt.serving.settings import ServerSettings
from rag_opt.system.environment import use_threads
from rag_opt.tracking.failures import shorten_error

LATER = 30.0
"""Seconds after which a version that could not be loaded is tried again."""


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

    refresh = partial(refresh_models, service, settings)
    return build_app(service, settings, Keys.from_environment(), close, refresh)


async def refresh_models(service: Service, settings: ServerSettings) -> None:
    """Have a service answer with what its models' aliases mean, for as long as it lives.

    A version is loaded beside the one that answers, and takes its place in one step: a request is answered by the one
    that it began with.
    """
    registry, notices = Registry.connect(settings.tracking), Notices()
    failed: dict[tuple[str, str], float] = {}
    while settings.refresh:
        await asyncio.sleep(settings.refresh)
        for arm in list(service.deployment):
            try:
                version = await asyncio.to_thread(find_version, arm, registry)
                # One that could not be loaded is tried again after a while: each time it costs what loading costs.
                if version == arm.version or time.monotonic() < failed.get((arm.name, version), 0.0):
                    continue
                failed[arm.name, version] = time.monotonic() + LATER
                ready = await asyncio.to_thread(load_arm, arm.name, arm.address, registry)
            except Exception as error:
                # Whatever a registry or a component raises: the version that answers goes on, and so does the look-out.
                notices.report_once(f"{arm.address} stays version {arm.version}: {shorten_error(error)}")
                continue
            failed.pop((arm.name, version))
            service.deployment = replace_arm(service.deployment, ready)
            report_line(f"{arm.address} is version {ready.version} now, in place of {arm.version}")
