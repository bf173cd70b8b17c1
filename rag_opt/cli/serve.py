"""`python -m rag_opt.serve models:/<name>@champion | studies/<name>`: a model as a service, on this machine only.

OpenAI's protocol at /v1 (chat completions and responses, streamed or whole), /search, /feedback, /health, /ready,
/metrics for Prometheus, and a page to ask in at /. Keys come from RAG_OPT_KEYS=name:key,… or RAG_OPT_KEYS=@file, a
name:key on each line, which is read again when it changes.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import ConfigError
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.serving.settings import ServerSettings

FACTORY = "rag_opt.serving.worker:create_app"
UNUSUAL = re.compile(r"[^\w-]+")


@command_line("serve", __doc__)
def main(
    model: Annotated[str, Argument(help="models:/<name>, models:/<name>@<alias>, or a finished study's folder")],
    canary: Annotated[
        str | None, Option(help="another model for a share of those who ask: models:/x@challenger=0.1")
    ] = None,
    port: Annotated[int, Option(help="0: any that is free")] = 8200,
    host: Annotated[str, Option(help="another address than this machine's own needs keys")] = "127.0.0.1",
    workers: Annotated[int, Option(min=1, help="processes")] = 1,
    at_once: Annotated[int, Option(min=1, help="questions under way in a process")] = 8,
    waiting: Annotated[int, Option(min=0, help="questions that may wait in a process; more get 503")] = 64,
    rate: Annotated[str, Option(help="of each key in each process, such as 60/minute; more get 429")] = "",
    timeout: Annotated[float, Option(min=0.1, help="seconds that an answer may take")] = 60.0,
    largest: Annotated[int, Option(min=1_000, help="bytes of a request")] = 1_000_000,
    traces: Annotated[float, Option(help="share of the questions that become MLflow traces; 0: nothing is kept")] = 1.0,
    state: Annotated[str, Option(help="folder for traces that MLflow has not taken yet")] = "",
    refresh: Annotated[
        float, Option(min=0.0, help="seconds between looks whether an alias means another version; 0: none")
    ] = 1.0,
    tracking: Annotated[
        str, Option(help="MLflow's address; MLFLOW_TRACKING_URI or studies/mlflow.db where none is given")
    ] = "",
) -> None:
    """The command line."""
    print("rag_opt.serve: loading the model, which takes some seconds", flush=True)
    # Before anything heavy, so that a port that is taken is said at once.
    listening = listen(host, port)
    with environment.disable_gc():
        environment.silence_optuna()
        from rag_opt.production.registry import Registry
        from rag_opt.serving.settings import ServerSettings, parse_canary

        other, share = parse_canary(canary)
        settings = ServerSettings(
            model=prepare_model(model),
            canary=prepare_model(other) if other else "",
            share=share,
            host=host,
            port=listening.getsockname()[1],
            workers=workers,
            at_once=at_once,
            waiting=waiting,
            rate=rate,
            timeout=timeout,
            largest=largest,
            traces=traces,
            state=state or f"studies/served/{UNUSUAL.sub('-', model).strip('-')}",
            refresh=refresh,
            tracking=Registry.connect(tracking or None).uri,
        )
    _run(settings, listening)


def prepare_model(given: str) -> str:
    """The model as services find it: of a study's folder a bundle, made where there is none of its last findings."""
    from rag_opt.production.bundle import is_bundle
    from rag_opt.serving.deployment import PREFIX

    folder = Path(given)
    if given.startswith(PREFIX) or is_bundle(folder):
        return given
    place = folder / "bundle"
    known, findings = place / "bundle.json", folder / "findings.json"
    if not known.is_file() or (findings.is_file() and known.stat().st_mtime < findings.stat().st_mtime):
        from rag_opt.production.promotion import bundle_study

        # On the study's own disk, so that bundles come and go by renames and none is ever half there.
        with TemporaryDirectory(dir=folder if folder.is_dir() else None, prefix=".bundle-") as made:
            bundle_study(folder, Path(made) / "bundle")
            if place.exists():
                place.rename(Path(made) / "earlier")
            (Path(made) / "bundle").rename(place)
    return str(place)


def _run(settings: ServerSettings, listening: socket.socket) -> None:
    import uvicorn

    from rag_opt.serving.keys import Keys
    from rag_opt.serving.sender import sending

    # Before the model is loaded, which takes seconds.
    settings.check()
    Keys.from_environment()
    if settings.workers == 1:
        from rag_opt.serving.deployment import load_deployment
        from rag_opt.serving.worker import build_service

        app = build_service(settings, load_deployment(settings))
        with sending(settings):
            _tell(settings)
            uvicorn.Server(_configure(app, settings)).run(sockets=[listening])
        return
    from rag_opt.serving.metrics import FOLDER

    # A new folder each time: prometheus_client would add what processes of an earlier start left there.
    with TemporaryDirectory(prefix="rag_opt-metrics-") as numbers:
        # Worker processes are spawned, and know of this one what the environment tells.
        os.environ.update({**settings.to_environment(), FOLDER: numbers})
        _tell(settings)
        with sending(settings):
            _build_supervisor(settings, listening).run()


def _build_supervisor(settings: ServerSettings, listening: socket.socket) -> Any:
    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        def terminate_all(self) -> None:
            # While it is open here the system takes connections that nobody answers any more.
            listening.close()
            super().terminate_all()

    return Supervisor(_configure(FACTORY, settings), [listening])


def _configure(app: Any, settings: ServerSettings) -> Any:
    import uvicorn

    return uvicorn.Config(
        app,
        factory=app == FACTORY,
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        # By default uvicorn believes X-Forwarded-For of whoever asks from this machine.
        proxy_headers=False,
        timeout_keep_alive=30,
        # Who was let in is answered before the process ends.
        timeout_graceful_shutdown=int(settings.timeout) + 5,
        # A process has its model to load before it says that it lives.
        timeout_worker_healthcheck=120,
    )


def _tell(settings: ServerSettings) -> None:
    url = f"http://{settings.host}:{settings.port}"
    canary = f", for {settings.share:.0%} {settings.canary}" if settings.canary else ""
    print(sanitize_line(f"serving {settings.model}{canary}: {url}   (Ctrl-C ends it)"))
    print(sanitize_line(f"ask:    open {url}"))
    print(sanitize_line(f"openai: OPENAI_BASE_URL={url}/v1"), flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; raises ConfigError where it can't be had."""
    try:
        # By getaddrinfo, so that --host may be a name or an IPv6 address.
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
    except (OSError, OverflowError, UnicodeError) as error:
        # A part of a name that is longer than 63 letters is a UnicodeError.
        raise ConfigError(f"--host {host}: there is no such address: {error}") from error
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except (OSError, OverflowError) as error:
        found.close()
        raise ConfigError(f"--port {port}: can't be listened on: {error}; choose another, or 0 for any") from error
    # As uvicorn's own sockets are: its worker processes take it over.
    found.set_inheritable(True)
    return found
