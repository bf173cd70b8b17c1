"""A process of a service: its models loaded, its journal opened, its application built."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from rag_opt.console.notices import Notices
from rag_opt.console.screens import report_line
from rag_opt.production.registry import Registry
from rag_opt.serving.admission import Admission
from rag_opt.serving.app import build_app
from rag_opt.serving.deployment import (
    CANARY,
    MODEL,
    Arm,
    Deployment,
    find_version,
    is_same_model,
    load_arm,
    load_deployment,
    replace_arm,
)
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
    that it began with. A canary may come later, and go.
    """
    registry, notices = Registry.connect(settings.tracking), Notices()
    failed: dict[tuple[str, str], float] = {}
    wanted = [(MODEL, settings.model), *([(CANARY, settings.canary)] if settings.canary else [])]
    while settings.refresh:
        await asyncio.sleep(settings.refresh)
        for name, address in wanted:
            known = service.deployment.get_version(name)
            try:
                version = await asyncio.to_thread(find_version, address, registry)
                if version is None:
                    if name == CANARY:
                        drop_canary(service)
                    else:
                        notices.report_once(f"{address} means no version any more: {known} goes on")
                    continue
                # One that could not be loaded is tried again after a while: each time it costs what loading costs.
                if version == known or time.monotonic() < failed.get((name, version), 0.0):
                    continue
                failed[name, version] = time.monotonic() + LATER
                ready = await asyncio.to_thread(prepare_arm, service.deployment, name, address, version, registry)
            except Exception as error:
                # Whatever a registry or a component raises: the version that answers goes on, and so does the look-out.
                notices.report_once(f"{address} stays version {known}: {shorten_error(error)}")
                continue
            failed.pop((name, version))
            service.deployment = replace_arm(service.deployment, ready)
            report_line(f"{address} is version {ready.version} now{f', in place of {known}' if known else ''}")


def drop_canary(service: Service) -> None:
    """Have all be answered by the model again, where there was a canary."""
    canary = service.deployment.canary
    if canary is not None:
        service.deployment = replace(service.deployment, canary=None)
        report_line(f"{canary.address} is no more: version {canary.version} answers nobody from now on")


def prepare_arm(deployment: Deployment, name: str, address: str, version: str, registry: Registry) -> Arm:
    """An arm that answers with a version: as the other one does where that has it, else loaded."""
    for other in deployment:
        if other.version == version and is_same_model(other.address, address):
            # Loaded once: a challenger that becomes the champion is at work already.
            return replace(other, name=name, address=address)
    return load_arm(name, address, registry)
