"""Nothing leaves the machine that was not asked for: no connection, no name looked up, no telemetry.

The quickstart offline is tests/integration/test_commands.py; here are the parts that it has none of (Chroma, traces,
report, replay, ask), watched from below: by an audit hook, which no library goes around from Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag_opt.system.environment import QUIET
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

GUARD = """
import os, sys
CALLS = ("connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")
def hook(event, arguments):
    kind, _, call = event.partition(".")
    if kind != "socket" or call not in CALLS:
        return
    # Between processes of this machine there are sockets with a path for a name.
    if call in ("connect", "sendto", "sendmsg") and not isinstance(arguments[1], tuple):
        return
    with open(os.environ["RAG_OPT_TEST_NETWORK"], "a") as log:
        log.write(f"{event} {arguments[1:] if call == 'connect' else arguments}\\n")
    raise OSError("no network in this test")
sys.addaudithook(hook)
"""
TELLTALES = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "GITLAB_CI", "JENKINS_URL", "DISABLE_TELEMETRY")
"""Variables by which a library guesses that nobody is using it, and is silent."""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """An environment in which every way out is noted and closed, as a user has it: nothing is switched off."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    plain = {name: value for name, value in os.environ.items() if name not in {*QUIET, *TELLTALES}}
    return {
        **plain,
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{guard}:{ROOT}",
        "RAG_OPT_STORE": str(tmp_path / "store"),
        "RAG_OPT_TEST_NETWORK": str(tmp_path / "network.log"),
    }


def python(watched: dict[str, str], tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=watched, capture_output=True, text=True, timeout=300
    )


def tried(tmp_path: Path) -> list[str]:
    log = tmp_path / "network.log"
    return log.read_text().splitlines() if log.exists() else []


AFTER = """
import sys
from rag_opt.cli import ask, report, trial
report.main(["studies/animals"])
trial.measure_configuration(sys.argv[1:-1])
ask.answer_question(sys.argv[1:])
"""


def test_a_study_its_report_a_replay_and_a_question_stay_on_the_machine(
    animals, watched, tmp_path: Path, figure
) -> None:
    # The default encoder, not the tests' hashing: it comes from the package index, not from a hub.
    given = [*(word for word in animals if not word.startswith("embedder=")), "index=chroma"]
    traced = ["n_trials=2", "tracking.traces=finalists", "retriever=hybrid"]
    study = python(watched, tmp_path, "-m", "rag_opt.study", *given, *traced)
    assert study.returncode == 0, study.stderr
    assert "open:" in study.stdout
    after = python(watched, tmp_path, "-c", AFTER, *given, "question='Which animals purr?'")
    assert after.returncode == 0, after.stderr
    assert "open:" in after.stdout
    assert tried(tmp_path) == []
    figure("network", "a study, its report, a replay and a question: 0 connections, 0 names looked up")


@pytest.mark.parametrize(
    "way",
    [
        "import urllib.request; urllib.request.urlopen('http://example.org')",
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import socket; socket.gethostbyname('example.org')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import _socket; _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).connect_ex(('127.0.0.1', 9))",
    ],
)
def test_the_guard_sees_every_way_out(watched, tmp_path: Path, way: str) -> None:
    python(watched, tmp_path, "-c", way)
    assert len(tried(tmp_path)) == 1


SWITCHES = """
import json, os, sys
import rag_opt
found = {}
from haystack.telemetry import _telemetry
found["haystack"] = _telemetry.telemetry is None
from haystack import Pipeline
import mlflow
from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled
found["mlflow"] = bool(is_telemetry_disabled()) and get_telemetry_client() is None
from chromadb.config import Settings
found["chromadb"] = Settings().anonymized_telemetry is False
from huggingface_hub import constants
found["huggingface_hub"] = constants.HF_HUB_DISABLE_TELEMETRY
import optunahub
found["optunahub"] = os.environ["OPTUNAHUB_NO_ANALYTICS"] == "1"
import threading
names = [thread.name for thread in threading.enumerate()]
found["no thread waits to send"] = not [name for name in names if "elemetry" in name or "posthog" in name.lower()]
import posthog
found["posthog"] = posthog.default_client is None
print(json.dumps(found))
"""


def test_every_dependencys_own_switch_is_off(watched, tmp_path: Path) -> None:
    done = python(watched, tmp_path, "-c", SWITCHES)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [name for name, off in found.items() if not off] == []
    assert len(found) == 7
    assert tried(tmp_path) == []


def test_a_switch_that_a_user_has_set_stays(watched, tmp_path: Path) -> None:
    script = "import rag_opt; from haystack.telemetry import _telemetry; print(_telemetry.telemetry is None)"
    on = {**watched, "HAYSTACK_TELEMETRY_ENABLED": "True"}
    assert python(on, tmp_path, "-c", script).stdout == "False\n"


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed")
def test_distributed_has_nothing_that_reports(watched, tmp_path: Path) -> None:
    script = "import dask, distributed, json; print(json.dumps(dask.config.config, default=str))"
    done = python(watched, tmp_path, "-c", script)
    settings = done.stdout.lower()
    assert settings
    assert not [word for word in ("telemetry", "analytics", "posthog", "sentry", "usage-stat") if word in settings]
    assert tried(tmp_path) == []
