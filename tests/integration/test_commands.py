"""The program from outside: the quickstart, real data, kills, multirun, replay, bad command lines, no network."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rag_opt.config import compose
from rag_opt.config.experiments import expand_best
from tests.conftest import ROOT
from tests.integration.commands import command, finished, killed, trials

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def msmarco(data: Path) -> list[str]:
    """A real slice of MS MARCO that embeds in seconds."""
    return [
        "+experiment=msmarco",
        f"dataset.path={data / 'msmarco_qa' / 'ms_marco_v2.1.jsonl'}",
        "dataset.num_documents=300",
        "dataset.num_queries=60",
        "n_trials=14",
    ]


@pytest.mark.parametrize(
    ("words", "count"),
    # Another chunking, whose embedding takes longest, is first drawn by a later trial.
    [(["n_trials=8"], 8), pytest.param([], 25, marks=pytest.mark.long)],
    ids=["shorter", "as it is"],
)
def test_the_quickstart_runs_offline_and_reports(tmp_path: Path, words: list[str], count: int) -> None:
    """From installed environment to printed result in under 3 minutes, with every way out of the machine closed."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(NO_NETWORK)
    start = time.monotonic()
    import os
    import subprocess

    environment = os.environ | {"PYTHONPATH": str(guard), "RAG_OPT_STORE": str(tmp_path / "store")}
    done = subprocess.run(command(*words), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "network.log").exists(), (tmp_path / "network.log").read_text()
    assert f"{count} trials" in done.stdout
    assert "questions the search never saw" in done.stdout
    assert (tmp_path / "studies/quickstart/best.yaml").is_file()
    found = trials(tmp_path, "quickstart")
    assert len(found) == count
    baseline, best = found[0][1][0], max(values[0] for _, values, state in found if state.name == "COMPLETE")
    assert 0.7 < baseline <= best
    assert seconds < 300, "twice the promise, so that a busy machine does not fail the test; the README has the figure"


NO_NETWORK = """
import os, socket
real = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        with open("network.log", "a") as log:
            log.write(f"{address}\\n")
        raise OSError("no network in this test")
    return real(self, address)
socket.socket.connect = connect
socket.socket.connect_ex = connect
def getaddrinfo(host, *args, **kwargs):
    with open("network.log", "a") as log:
        log.write(f"name {host}\\n")
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.long
def test_a_study_killed_at_three_points_equals_an_uninterrupted_one(tmp_path, msmarco, shared_store) -> None:
    """On real data, with the default sampler; the others, on both storages, are in tests/faults/test_kills.py."""
    options = [*msmarco, "tracking=none"]
    assert finished(tmp_path, *options, "name=whole", store=shared_store).returncode == 0
    for after in (2, 5, 4):
        killed(tmp_path, *options, "name=killed", after=after, store=shared_store)
    done = finished(tmp_path, *options, "name=killed", store=shared_store)
    assert done.returncode == 0, done.stderr
    assert "resumed: " in done.stderr
    assert trials(tmp_path, "killed") == trials(tmp_path, "whole")
    assert len(trials(tmp_path, "whole")) == 14


@pytest.mark.long
def test_mlflow_is_whole_after_a_kill(tmp_path, animals, shared_store) -> None:
    words = [*animals, "sampler=random", "n_trials=14"]
    killed(tmp_path, *words, after=3, store=shared_store)
    killed(tmp_path, *words, after=2, store=shared_store)
    assert finished(tmp_path, *words, store=shared_store).returncode == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/studies/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("rag_opt").experiment_id])
    children = [run for run in runs if "rag_opt.trial" in run.data.tags]
    parents = {run.info.run_id for run in runs if "rag_opt.study" in run.data.tags}
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == parents
    assert "RUNNING" not in {run.info.status for run in runs}
    told = [state.name for _, _, state in trials(tmp_path, "animals") if state.name in ("COMPLETE", "PRUNED")]
    assert sum(run.info.status in ("FINISHED", "KILLED") for run in children) == len(told) >= 14


def test_a_real_msmarco_study_and_the_replay_of_its_best_command(tmp_path, msmarco, shared_store) -> None:
    done = finished(tmp_path, *msmarco, store=shared_store)
    assert done.returncode == 0, done.stderr
    replay = next(line for line in done.stdout.splitlines() if line.startswith("replay:"))
    words = shlex.split(replay)[4:]
    again = finished(tmp_path, *words, module="rag_opt.trial", store=shared_store)
    assert again.returncode == 0, again.stderr
    told = next(line for line in done.stdout.splitlines() if line.startswith("Recommended: "))
    recommended = int(re.search(r"trial (\d+)", told)[1])
    value = trials(tmp_path, "msmarco")[recommended][1][0]
    line = next(line for line in again.stdout.splitlines() if "nDCG@10" in line)
    assert f"{value:.6g}" in line
    # What is a default needs no line in best.yaml: what it composes to is what counts.
    saved, told = (
        compose.compose_config(expand_best([f"best={tmp_path}/studies/msmarco"])),
        compose.compose_config(words),
    )
    assert saved.retriever.depth == 100
    assert saved.retriever == told.retriever
    assert saved.dataset == told.dataset
    assert "304 unanswerable queries left out" in done.stderr


def test_a_multirun_keeps_its_studies_apart_and_compares_them(tmp_path, animals) -> None:
    done = finished(tmp_path, "-m", *animals, "n_trials=5", "sampler=tpe,random", "seed=0,1", "tracking=none")
    assert done.returncode == 0, done.stderr
    folders = sorted(path.name for path in (tmp_path / "studies/animals").iterdir() if path.is_dir())
    assert folders == [f"sampler={s},seed={i}" for s in ("random", "tpe") for i in (0, 1)]
    assert "studies, by their recommended configuration" in done.stdout
    # A configuration that is drawn again takes no place.
    measured = [{str(params) for params, *_ in trials(tmp_path, f"animals/{folder}")} for folder in folders]
    assert [len(each) for each in measured] == [5, 5, 5, 5]
    again = next(line for line in done.stdout.splitlines() if line.startswith("continue:"))
    resumed = finished(tmp_path, *shlex.split(again)[4:])
    assert "resumed: 5 of 10" in resumed.stderr
    seeds = [trials(tmp_path, f"animals/sampler=random,seed={i}")[4][0] for i in (0, 1)]
    assert seeds[0] != seeds[1]


def test_a_refused_study_of_a_multirun_does_not_stop_the_others(tmp_path, animals) -> None:
    done = finished(tmp_path, "-m", *animals, "n_trials=2", "retriever.depth=0,6", "tracking=none")
    assert done.returncode == 2
    assert "depth must be a whole number" in done.stderr
    assert "2 trials" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["samplr=tpe"], "error: 'samplr' is not a key of this configuration; did you mean 'sampler'?\n"),
        (["sampler=tpee"], "error: sampler=tpee: there is no such choice in conf/sampler/; did you mean 'tpe'?\n"),
        (["n_trials=zero"], "error: n_trials=zero: a whole number of at least 1 is expected\n"),
        (["dataset=beir", "dataset.path=/nowhere"], "error: dataset.path=/nowhere: no such file or folder"),
        (["name=../../escaped"], "error: name='../../escaped': a study's name is its folder's name"),
        (["+experiment=msmarco"], "dataset.path=<file or folder"),
    ],
)
def test_a_bad_command_line_gets_one_message_and_leaves_nothing(tmp_path, overrides: list[str], message: str) -> None:
    done = finished(tmp_path, *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]])
def test_help_and_configuration_are_shown_without_a_heavy_import(tmp_path, words: list[str]) -> None:
    import subprocess

    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rag_opt.study", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0
    assert "sampler" in shown.stdout
    for heavy in ("torch", "haystack", "optuna", "mlflow", "numpy", "transformers"):
        assert f"| {heavy}\n" not in shown.stderr.replace("  ", "")
    assert not list(tmp_path.iterdir())
    if words == ["--help"]:
        started = {path.stem for path in (ROOT / "rag_opt").glob("*.py") if '"__main__"' in path.read_text("utf-8")}
        # These two are started by others.
        for command in started - {"worker", "mlflow_server"}:
            assert f"python -m rag_opt.{command} " in shown.stdout
        assert "_with_web" not in shown.stdout
        assert "retriever: bm25, bm25_web," in shown.stdout


def test_ones_own_configuration_folder_is_used_by_study_and_replay(tmp_path, animals) -> None:
    place = tmp_path / "mine" / "sampler"
    place.mkdir(parents=True)
    (place / "halton.yaml").write_text(
        "_target_: optuna.samplers.QMCSampler\nqmc_type: halton\nscramble: true\nseed: ${seed}\n"
    )
    done = finished(
        tmp_path, "--config-dir", str(tmp_path / "mine"), *animals, "sampler=halton", "n_trials=5", "tracking=none"
    )
    assert done.returncode == 0, done.stderr
    replay = shlex.split(next(line for line in done.stdout.splitlines() if line.startswith("replay:")))[4:]
    assert finished(tmp_path, *replay, module="rag_opt.trial").returncode == 0


def test_ctrl_c_stops_resumably(tmp_path, animals) -> None:
    import signal
    import subprocess

    process = subprocess.Popen(
        command(*animals, "n_trials=500", "tracking=none"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in a shell's background, SIGINT is ignored and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial 5"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "the same command goes on from here" in rest
    assert "Traceback" not in rest
    done = finished(tmp_path, *animals, "n_trials=12", "tracking=none")
    assert done.returncode == 0
    assert "resumed" in done.stderr


def test_what_is_asked_and_exported_in_the_end_finds_ones_own_files(tmp_path, animals) -> None:
    place = tmp_path / "mine" / "splitter"
    place.mkdir(parents=True)
    target = "rag_opt.components.splitters.chunkers.WordSplitter"
    (place / "own.yaml").write_text(f"components:\n  splitter: {{_target_: {target}, chunk_size: 30}}\n")
    given = [*animals, "splitter=own"]
    done = finished(tmp_path, "--config-dir", str(tmp_path / "mine"), *given, "n_trials=2", "tracking=none")
    assert done.returncode == 0, done.stderr
    for name in ("ask", "export"):
        line = next(each for each in done.stdout.splitlines() if each.startswith(f"{name}:"))
        done_so = finished(tmp_path, *shlex.split(line.replace("…", "cats"))[4:], module=f"rag_opt.{name}")
        assert done_so.returncode == 0, done_so.stderr
