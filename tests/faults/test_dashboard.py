"""The dashboard that we start: on this machine only, for its own pages only, and read-only unless told."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil
import pytest

from rag_opt.cli.study import run_study
from tests.conftest import ROOT
from tests.faults.conftest import Figure


@pytest.fixture(scope="module")
def study(animals: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    run_study([*animals, f"studies_dir={folder}/studies", f"store.path={folder}/store", "n_trials=5"])
    return folder / "studies/animals"


@contextmanager
def served(study: Path, *options: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_opt.dashboard", str(study), "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(re.search(r":(\d+) ", process.stdout.readline())[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def asked(port: int, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace"), dict(answer.getheaders())


STUDY = "/api/studies/1"


def test_only_its_own_pages_may_read_and_nobody_may_write(study: Path, figure: Figure) -> None:
    with served(study, "--no-mlflow") as port:
        own = f"http://127.0.0.1:{port}"
        assert asked(port, "GET", STUDY)[0] == 200
        assert asked(port, "GET", STUDY, Host=f"localhost:{port}")[0] == 200
        foreign = [
            asked(port, "GET", path, Host=host)[0]
            for path in ("/", "/dashboard", "/report", STUDY, "/api/studies", "/csv/1")
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", "")
        ]
        assert set(foreign) == {403}
        origins = (
            "http://evil.example",
            "null",
            f"https://127.0.0.1:{port}",
            f"http://127.0.0.1:{port + 1}",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
            "http://localhost",
            f"http://[::1]:{port}",
            f"http://127.0.0.1:{port}@evil.example",
            "file://",
        )
        assert {asked(port, "GET", STUDY, Origin=origin)[0] for origin in origins} == {403}
        writes = [("POST", "/api/studies"), ("DELETE", STUDY), ("PUT", f"{STUDY}/note"), ("POST", f"{STUDY}/rename")]
        writes += [("PATCH", STUDY), ("OPTIONS", STUDY), ("POST", "/api/trials/1/tell"), ("PUT", f"{STUDY}/1/note")]
        crossed = [asked(port, *write, Origin="http://evil.example")[0] for write in writes]
        assert set(crossed) == {403}
        assert {asked(port, *write, Origin=own)[0] for write in writes} == {403}, "read-only"
        assert {asked(port, *write)[0] for write in writes} == {403}, "read-only"
        _, text, headers = asked(port, "GET", STUDY)
        assert len(json.loads(text)["trials"]) == 5
        assert headers["X-Frame-Options"] == "DENY"
        assert not [name for name in headers if name.lower().startswith("access-control")]
    figure(
        "dashboard",
        f"{len(foreign)} requests with a foreign Host, {len(crossed)} cross-origin writes, {len(writes)} writes: all 403",
    )


ODD = (
    *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/%2e%2e/%2e%2e/app.py", "/static/..%2f..%2fapp.py"),
    *("/static/%00", "/static/bundle.js%00", "/dashboard/%00", "/%00", "/static/a%0d%0ab", "/static/%5c..%5capp.py"),
    *("/static/%ff", "/%ff", "/%c0%ae%c0%ae/", "/static/%ed%a0%80", "/static//etc/passwd", "/static/%F0%9F%98%80"),
    *("/csv/99999999999999999999", "/api/studies/99999999999999999999", f"/static/{'a' * 5000}", "/artifacts/1/%2e%2e"),
)


def odd(count: int) -> list[str]:
    """So many paths below /static/ of bytes that no file's name has."""
    chance = Random(0)
    rows = [[0, *(chance.randrange(256) for _ in range(chance.randrange(1, 40)))] for _ in range(count)]
    return [f"/static/{''.join(f'%{byte:02x}' for byte in chance.sample(row, len(row)))}" for row in rows]


def test_a_path_that_no_page_has_is_the_askers_mistake(study: Path, long: bool, figure: Figure) -> None:
    paths = (*ODD, *odd(500 if long else 5))
    with served(study, "--no-mlflow") as port:
        found = {(method, path): asked(port, method, path)[0] for path in paths for method in ("GET", "HEAD")}
    assert {case: status for case, status in found.items() if not 400 <= status < 500} == {}
    figure("dashboard", f"{len(found)} requests for {len(paths)} encoded and impossible paths: all 4xx")


def test_changes_are_for_those_who_ask_for_them_and_for_its_own_pages(study: Path) -> None:
    with served(study, "--writable", "--no-mlflow") as port:
        version = json.loads(asked(port, "GET", STUDY)[1])["note"]["version"]
        note = json.dumps({"body": "seen", "version": version + 1})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for origin, status in (("http://evil.example", 403), (f"http://127.0.0.1:{port}", 204)):
            headers = {"Origin": origin, "Content-Type": "application/json"}
            connection.request("PUT", f"{STUDY}/note", body=note, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status


EXPERIMENT = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=rag_opt"
ORIGINS = ("http://localhost:3000", "http://127.0.0.1:3000", "http://localhost", "http://evil.example", "null")
FETCHES: tuple[dict[str, str], ...] = (
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
)


def written(port: int, tag: str, experiment: str, **headers: str) -> int:
    """The status with which MLflow answers to a tag for an experiment."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"experiment_id": experiment, "key": tag, "value": "x"})
    sent = {"Content-Type": "application/json", **headers}
    connection.request("POST", "/api/2.0/mlflow/experiments/set-experiment-tag", body=body, headers=sent)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_all_that_it_starts_listens_on_this_machine_only(study: Path, figure: Figure) -> None:
    with served(study) as port:
        from tests.faults.test_workers import reachable

        page = asked(port, "GET", "/")[1]
        mlflow = int(re.search(r"http://127\.0\.0\.1:(\d+)", page)[1])
        reachable(mlflow)
        me = psutil.Process()
        listening = {
            connection.laddr.ip
            for process in me.children(recursive=True)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and process.is_running()
        }
        assert listening == {"127.0.0.1"}
        assert asked(mlflow, "GET", EXPERIMENT)[0] == 200
        experiment = json.loads(asked(mlflow, "GET", EXPERIMENT)[1])["experiment"]["experiment_id"]
        assert asked(mlflow, "GET", "/", Host="evil.example")[0] == 403
        foreign = [
            written(mlflow, f"tag{place}", experiment, **headers)
            for place, headers in enumerate([{"Origin": origin} for origin in ORIGINS] + [*FETCHES])
        ]
        assert set(foreign) == {403}
        assert {asked(mlflow, "GET", EXPERIMENT, Origin=origin)[0] for origin in ORIGINS} == {403}
        assert {asked(mlflow, "OPTIONS", EXPERIMENT, Origin=origin)[0] for origin in ORIGINS} == {403}
        assert written(mlflow, "own", experiment, Origin=f"http://127.0.0.1:{mlflow}") == 200
        assert written(mlflow, "program", experiment) == 200
        tags = {tag["key"] for tag in json.loads(asked(mlflow, "GET", EXPERIMENT)[1])["experiment"]["tags"]}
        assert {tag for tag in tags if not tag.startswith("mlflow.")} == {"own", "program"}
        assert "<title>MLflow" in asked(mlflow, "GET", "/", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="navigate")[1]
    told = f"MLflow refuses a foreign Host and {len(foreign)} writes of pages that are not its own, this machine's too"
    figure("dashboard", f"optuna-dashboard and MLflow listen on 127.0.0.1 only; {told}")


def test_nothing_that_it_started_outlives_it(study: Path) -> None:
    with served(study) as port:
        mlflow = int(re.search(r"http://127\.0\.0\.1:(\d+)", asked(port, "GET", "/")[1])[1])
        from tests.faults.test_workers import answers, reachable

        reachable(mlflow)
        dashboards = [each for each in psutil.Process().children() if "rag_opt.dashboard" in " ".join(each.cmdline())]
        dashboards[0].kill()
        end = time.monotonic() + 30
        while answers(mlflow):
            assert time.monotonic() < end, "MLflow goes on"
            time.sleep(0.2)


def test_a_browser_shows_the_study_its_report_and_its_trials(study: Path) -> None:
    chromium = pytest.importorskip("playwright.sync_api")
    from tests.integration.test_report import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with served(study, "--no-mlflow") as port, chromium.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("The report").click()
        page.wait_for_selector("text=animals")
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/1")
        page.wait_for_selector("text=animals", timeout=30_000)
        shots = ROOT / ".screenshots"
        shots.mkdir(exist_ok=True)
        page.wait_for_timeout(1500)
        page.screenshot(path=str(shots / "dashboard.png"))
        browser.close()


@pytest.mark.parametrize("what", ["no such folder", "empty folder"])
def test_what_is_no_study_is_said(tmp_path: Path, what: str, capsys) -> None:
    from rag_opt.cli.dashboard import main

    folder = tmp_path / "none"
    if what == "empty folder":
        folder.mkdir()
    with pytest.raises(SystemExit) as stopped:
        main([str(folder), "--port", "0"])
    assert stopped.value.code == 2
    assert "there is no study in it" in capsys.readouterr().err
