"""`python -m rag_opt.dashboard studies/<name>`: look at a study in the browser: optuna-dashboard, its report, MLflow.

It listens on this machine only and answers to its own name only, so that no page of the web can read or change a study
through the browser; nothing can be changed at all without --writable.
"""

from __future__ import annotations

import contextlib
import html
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from typer import Argument, Option

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import StudyError
from rag_opt.system import environment
from rag_opt.system.same_origin import HOST, PATH, READING, explain_refusal

# No other page may frame it and have somebody click in it unawares.
HARDENED = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]

App = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><style>body{{font:16px/1.6 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}}
@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}a{{color:#8bf}}}}li{{margin:.6em 0}}</style>
<h1>{name}</h1><p>{state}</p><ul>{links}</ul><p>{writing}</p></html>"""


def guard_app(app: App, port: int, *, writable: bool) -> App:
    """The app for requests that come from its own pages; others, and changes, are answered with 403."""

    def answered(environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        def hardened(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [each for each in headers if not each[0].lower().startswith("access-control-")]
            return start(status, [*kept, *HARDENED], *rest)

        status, why = _find_refusal(environ, port, writable)
        if not why:
            return app(environ, hardened)
        hardened(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{why}\n".encode()]

    return answered


def _find_refusal(environ: Mapping[str, Any], port: int, writable: bool) -> tuple[str, str]:
    """The status and the reason with which a request is refused; "", "" for one that is not."""
    # WSGI has the header Sec-Fetch-Site as HTTP_SEC_FETCH_SITE.
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    if why := explain_refusal(environ["REQUEST_METHOD"], headers, port):
        return "403 Forbidden", why
    if not PATH.fullmatch(environ.get("PATH_INFO", "") or "/"):
        return "400 Bad Request", "there is no such path"
    if environ["REQUEST_METHOD"] not in READING and not writable:
        return "403 Forbidden", "read-only: start it with --writable to change studies"
    return "", ""


def add_pages(app: App, pages: Mapping[str, Callable[[], bytes]]) -> App:
    """The app, with pages of ours under these paths."""

    def answered(environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        page = pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return app(environ, start)
        start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [page()]

    return answered


def build_dashboard(folder: Path, url: str, port: int, mlflow: str, *, writable: bool) -> App:
    """The guarded dashboard of the studies in the database of this URL; raises StorageError when it can't be read."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import RDBStorage
    from optuna_dashboard import wsgi

    from rag_opt.storages.databases import get_engine_url
    from rag_opt.storages.opening import translate_errors

    with translate_errors(url):
        # Looking at a database must not make tables in it.
        storage = RDBStorage(get_engine_url(url), skip_table_creation=True)
    # The writers of a running study come first: what is read here waits for none of them.
    place = folder / "artifacts"
    place.mkdir(exist_ok=True)
    app = wsgi(storage, artifact_store=FileSystemArtifactStore(str(place)))
    report = folder / "report.html"
    links = {"Trials, parameters, plots (optuna-dashboard)": "/dashboard"}
    # A lambda: links are still added below.
    pages = {"/": lambda: _render_landing(folder, links, writable)}
    if report.is_file():
        links["The report: what to use, and how sure that is"] = "/report"
        # Read at each request, so that a report that is written anew is shown.
        pages["/report"] = report.read_bytes
    if mlflow:
        links["Runs, metrics, traces (MLflow)"] = mlflow
    return guard_app(add_pages(app, pages), port, writable=writable)


def _render_landing(folder: Path, links: Mapping[str, str], writable: bool) -> bytes:
    listed = "".join(f'<li><a href="{html.escape(to)}">{html.escape(text)}</a></li>' for text, to in links.items())
    writing = "Changes are allowed." if writable else "Read-only but for MLflow; --writable allows changes."
    told = "" if "/report" in links.values() else "This study has no report yet."
    return PAGE.format(name=html.escape(folder.name), state=told, links=listed, writing=writing).encode()


class _Server(ThreadingMixIn, WSGIServer):
    # Otherwise closing the server waits for every connection that a browser keeps open.
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's)
        """Nothing."""


@contextmanager
def open_server(port: int, app: Callable[[int], App]) -> Iterator[WSGIServer]:
    """A server on this machine for the app that is made for its port; raises StudyError when the port is taken."""
    try:
        # An app for the time being: the real one checks Host against the port, which is known once it is bound.
        server = make_server(HOST, port, lambda _, __: [], _Server, _Quiet)
    except OSError as error:
        raise StudyError(
            f"--port {port}: can't be listened on: {error.strerror}; choose another, or 0 for any"
        ) from error
    with server:
        server.set_app(app(server.server_port))
        yield server


# It is killed in the end: uvicorn waits without limit for connections that are open, such as a browser's.
@contextmanager
def start_mlflow(database: Path) -> Iterator[str]:
    """The address of an MLflow server on this machine over its database; "" where there is none."""
    if not database.is_file():
        yield ""
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 (our own arguments)
        [sys.executable, "-m", "rag_opt.cli.mlflow_server", str(database), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


@command_line("dashboard", __doc__)
def main(
    study: Annotated[Path, Argument(help="a study's folder")],
    port: Annotated[int, Option(help="0: any that is free")] = 8080,
    writable: Annotated[bool, Option("--writable", help="allow changes: notes, deleted studies")] = False,
    storage: Storage = None,
    no_mlflow: Annotated[bool, Option("--no-mlflow", help="start no MLflow server beside it")] = False,
) -> None:
    """The command line."""
    from rag_opt.analysis.findings import resolve_storage_url
    from rag_opt.system.signals import Stopping

    environment.silence_optuna()
    url = resolve_storage_url(study, storage)
    database = study.parent / ("" if no_mlflow else "mlflow.db")
    with Stopping(), start_mlflow(database) as mlflow:
        made = lambda free: build_dashboard(study, url, free, mlflow, writable=writable)  # noqa: E731
        with open_server(port, made) as server:
            print(sanitize_line(f"open: http://{HOST}:{server.server_port}   (Ctrl-C ends it)"), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
