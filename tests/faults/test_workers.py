"""Commands as users type them: workers that a command starts, faults of what they run, several commands at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError
from rag_opt.storages.databases import get_engine_url
from rag_opt.storages.processes import get_worker
from tests.conftest import ROOT, own_space
from tests.faults.conftest import Figure
from tests.faults.faulty import DEADLY, FAULTS, VALUES
from tests.integration.commands import command, finished


@pytest.fixture
def words(words: list[str]) -> list[str]:
    """A study without answers: so many processes need not load what scores these."""
    return [*words, "generator=none"]


def trials_of(folder: Path, name: str = "animals") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/studies/{name}/study.db").trials


def counted(trials: list[optuna.trial.FrozenTrial]) -> int:
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(trial.state in states and "repeats" not in trial.user_attrs for trial in trials)


@pytest.mark.long
def test_whatever_a_trial_returns_or_raises_the_study_goes_on(words, tmp_path, monkeypatch, figure: Figure) -> None:
    """Values that are none, exceptions of every kind, and four ends of a whole process, in two workers."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # A full memory is no fault of a configuration: three in a row end a study (test_outages.py).
    kinds = ["none", *(each for each in FAULTS if each != "memory_error"), *VALUES]
    space = own_space(tmp_path, {"generator.fault": f"choice({','.join(kinds)})"})
    conf = tmp_path / "conf"
    for group in ("generator", "objective"):
        (conf / group).mkdir()
    generator = {
        "max_tokens": 48,
        "fault": "none",
        "components": {
            "faulty": {
                "_target_": "tests.faults.faulty.Faulty",
                "max_tokens": "${generator.max_tokens}",
                "fault": "${generator.fault}",
            }
        },
    }
    (conf / "generator/faulty.yaml").write_text(yaml.safe_dump(generator))
    own = {"oddness": {"function": "tests.faults.faulty.odd", "direction": "maximize", "needs": "generator"}}
    objective = {"metrics": ["oddness"], "directions": None, "report": [], "constraints": [], "own": own}
    (conf / "objective/odd.yaml").write_text(yaml.safe_dump(objective))
    words = [word for word in words if not word.startswith(("retries", "search_space", "sampler"))]
    done = finished(
        tmp_path,
        *words,
        *space,
        "generator=faulty",
        "objective=odd",
        "trusted_modules=[tests]",
        "sampler=brute_force",
        "retriever=bm25",
        "retries=1",
        "n_workers=2",
        "n_trials=200",
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    trials = trials_of(tmp_path)
    measured = [trial for trial in trials if trial.params and "repeats" not in trial.user_attrs]
    last = {trial.params["generator.fault"]: trial for trial in measured}
    assert set(last) == set(kinds)
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    assert {kind for kind, trial in last.items() if "given_up" in trial.user_attrs} == DEADLY
    complete = {kind for kind, trial in last.items() if trial.state == TrialState.COMPLETE}
    assert complete == {"none"}, "no value that is none became a score"
    assert all(last[kind].user_attrs["reason"] for kind in set(kinds) - {"none"})
    died = done.stderr.count("another takes its place")
    assert died == 2 * len(DEADLY)
    for name in ("SIGSEGV", "SIGABRT", "SIGKILL", "exit status 7"):
        assert name in done.stderr
    assert "given up" in done.stderr
    figure(
        "objective faults",
        f"{len(kinds) - 1} values, exceptions and ends of the process: the study went on, {died} workers replaced, "
        f"{len(DEADLY)} configurations given up, 1 of 1 sound one complete",
    )


def test_workers_that_only_die_end_the_study_with_a_reason(words, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'rag_opt.workers.worker' in ' '.join(sys.orig_argv):\n    os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        command(*words, "n_workers=2", "n_trials=4"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "workers died 10 times in a row (SIGKILL)" in done.stderr
    assert "its log is" in done.stderr
    assert "Traceback" not in done.stderr


def test_eight_commands_at_once_on_nothing(words, tmp_path, long: bool, figure: Figure) -> None:
    """Each makes the folder, both databases and the study, or finds them just made; together they run it once."""
    count, repeats, total = (8, 10, 24) if long else (4, 1, 12)
    for repeat in range(repeats):
        name, place = f"first{repeat}", tmp_path / str(repeat)
        place.mkdir()
        mine = [word for word in words if not word.startswith(("studies_dir", "tracking"))]
        processes = [
            subprocess.Popen(
                command(*mine, f"name={name}", f"n_trials={total}"),
                cwd=place,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        told = [process.communicate(timeout=600) for process in processes]
        assert [process.returncode for process in processes] == [0] * count, told
        trials = trials_of(place, name)
        assert counted(trials) == total
        assert all("Recommended:" in result for result, _ in told)
        mirrored(place, name, trials)
        shutil.rmtree(place)
    figure(
        "first start",
        f"{count} commands at once on nothing, {repeats} repeats: {count * repeats} alive, {total} of {total} each",
    )


def mirrored(place: Path, name: str, trials: list[optuna.trial.FrozenTrial], uri: str = "") -> tuple[int, int]:
    """MLflow says what Optuna says; gives the numbers of runs and of parents."""
    client = MlflowClient(uri or f"sqlite:///{place}/studies/mlflow.db")
    experiment = client.get_experiment_by_name("rag_opt")
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    parents = [run for run in runs if run.data.tags.get("rag_opt.study") == name]
    assert len(parents) == 1, f"{len(parents)} parents"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(children) + 1 == len(runs), "a run that is not linked"
    statuses = {int(run.data.tags["rag_opt.trial"]): run.info.status for run in children}
    assert len(statuses) == len(children), "two runs of one trial"
    true = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
    assert statuses == {trial.number: true[trial.state] for trial in trials}
    assert parents[0].info.status == "FINISHED"
    return len(children), len(parents)


def after_trials(process: subprocess.Popen, count: int) -> None:
    """Read what a command says until it has told of so many trials, whichever: others' workers may have any one."""
    assert process.stderr is not None
    told = 0
    for line in process.stderr:
        told += line.startswith("trial ")
        if told == count:
            return
    raise AssertionError(f"ended after {told} trials")


@pytest.mark.long
def test_mlflow_mirrors_optuna_after_kills_and_an_outage(words, tmp_path, long: bool, figure: Figure) -> None:
    """A real tracking server that goes away for a while under two workers, and commands that are killed."""
    port, away, total = free_port(), 30 if long else 6, 60 if long else 36
    uri = f"http://127.0.0.1:{port}"
    mine = [word for word in words if not word.startswith("tracking")]
    mine += [f"tracking.uri={uri}", "n_workers=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def served() -> subprocess.Popen:
        where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        kept = ["--backend-store-uri", f"sqlite:///{tmp_path}/served.db", "--artifacts-destination", f"{tmp_path}/art"]
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *kept],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        reachable(port)
        return server

    def begun() -> subprocess.Popen:
        return subprocess.Popen(
            command(*mine, f"n_trials={total}"), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    server = served()
    try:
        kills = 2 if long else 1
        for _ in range(kills):
            process = begun()
            after_trials(process, 3)
            process.kill()
            process.wait(120)
            time.sleep(1)
        process = begun()
        after_trials(process, 3)
        killed_whole(server)
        assert not answers(port)
        time.sleep(away)
        server = served()
        rest = process.communicate(timeout=300)[1]
        assert process.returncode == 0, rest[-3000:]
        trials = trials_of(tmp_path)
        assert counted(trials) == total
        runs, _ = mirrored(tmp_path, "animals", trials, uri)
        figure(
            "MLflow mirrors Optuna",
            f"{kills} kills of the command, {away} s without the server: {runs} runs for {len(trials)} trials, all linked, "
            "statuses true, 0 RUNNING",
        )
    finally:
        killed_whole(server)


def killed_whole(process: subprocess.Popen) -> None:
    """SIGKILL a process and all that it has started: MLflow's servers leave its session. Nothing of it is left then."""
    if process.poll() is not None:
        return
    whole = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in whole:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(whole, timeout=30)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def reachable(port: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not answers(port):
        assert time.monotonic() < end, f"nothing answers on port {port}"
        time.sleep(0.1)


@pytest.mark.long
def test_two_machines_with_folders_and_stores_of_their_own(words, postgres, tmp_path, long: bool, figure) -> None:
    """The same command in two places that share nothing but PostgreSQL: both end with the same findings."""
    url = postgres.database("machines")
    mine = [word for word in words if not word.startswith(("studies_dir", "store.path", "tracking"))]
    total = 40 if long else 20
    mine += [f"storage.url='{url}'", f"n_trials={total}"]
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    processes = [
        subprocess.Popen(
            command(*mine),
            cwd=place,
            env=os.environ | {"RAG_OPT_STORE": str(place / "store"), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    trials = optuna.load_study(study_name="animals", storage=get_engine_url(url)).trials
    assert counted(trials) == total
    shares = Counter(get_worker(trial) for trial in trials)
    assert len(shares) == 2
    assert min(shares.values()) >= 2
    best = [(place / "studies/animals/best.yaml").read_text() for place in places]
    assert best[0] == best[1]
    for place in places:
        assert len(list(place.glob("studies/animals/trials/*/per_query.json"))) >= total
        client = MlflowClient(f"sqlite:///{place}/studies/mlflow.db")
        experiment = client.get_experiment_by_name("rag_opt").experiment_id
        runs = client.search_runs([experiment], "tags.`rag_opt.trial` != ''", max_results=500)
        assert len(runs) == len(trials)
        for run_ in runs:
            trial = trials[int(run_.data.tags["rag_opt.trial"])]
            if "repeats" not in trial.user_attrs:
                assert len(run_.data.params) > len(trial.params), "the composed configuration"
                files = {each.path for each in client.list_artifacts(run_.info.run_id)}
                assert files >= {"config.yaml", "per_query.json"}
    figure(
        "one machine or many", f"2 places sharing only PostgreSQL: 40 of 40 trials, shared {sorted(shares.values())}"
    )


def test_sqlite_is_refused_for_workers_of_other_machines(words) -> None:
    with pytest.raises(ConfigError, match=r"can't share a SQLite file.*postgresql://") as caught:
        run_study([*words, "launcher=dask", "launcher.address=tcp://10.0.0.5:8786", "n_trials=2"])
    assert "storage.url=" in str(caught.value)


@pytest.mark.long
def test_no_scheduler_is_said(words, postgres) -> None:
    address = f"launcher.address=tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        run_study([*words, f"storage.url='{postgres.database('nobody')}'", "launcher=dask", address, "n_trials=2"])


@pytest.mark.long
def test_a_dask_cluster_of_this_machine_needs_no_address(words, tmp_path) -> None:
    done = finished(tmp_path, *words, "launcher=dask", "n_workers=2", "n_trials=8")
    assert done.returncode == 0, done.stderr[-3000:]
    assert counted(trials_of(tmp_path)) == 8


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_stops_workers_of_dask(words, tmp_path, number: int) -> None:
    """As a terminal sends Ctrl-C: to all processes of the command's group."""
    process = subprocess.Popen(
        command(*words, "launcher=dask", "n_workers=2", "n_trials=5000"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial 3"):
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            break
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if number == signal.SIGINT else 143), rest[-2000:]
    done = trials_of(tmp_path)
    time.sleep(1)
    after = trials_of(tmp_path)
    assert len(after) == len(done), "a worker goes on"
    assert not [trial for trial in after if trial.state == TrialState.RUNNING]


@pytest.mark.long
def test_dask_workers_and_the_command_may_die(words, postgres, tmp_path, long: bool, figure: Figure) -> None:
    """A scheduler and two Dask workers of their own; five kills of workers, one of the command that started it."""
    port, kills, total = free_port(), 5 if long else 2, 60
    url = postgres.database("dask")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAG_OPT_STORE": str(tmp_path / "store")}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    scheduler = subprocess.Popen([*dask, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet)

    def worker() -> subprocess.Popen:
        module = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}"]
        options = ["--host", "127.0.0.1", "--nworkers", "1", "--nthreads", "2", "--no-nanny", "--no-dashboard"]
        return subprocess.Popen([*module, *options], **quiet, start_new_session=True)

    def begun() -> subprocess.Popen:
        mine = [*words, f"storage.url='{url}'", "launcher=dask", f"launcher.address=tcp://127.0.0.1:{port}"]
        return subprocess.Popen(
            command(*mine, "n_workers=2", f"n_trials={total}"),
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done_so_far() -> int:
        try:
            return counted(optuna.load_study(study_name="animals", storage=get_engine_url(url)).trials)
        except KeyError:
            return 0

    reachable(port)
    workers = [worker(), worker()]
    try:
        command_line = begun()
        for kill in range(kills):
            count = done_so_far()
            end = time.monotonic() + 120
            while done_so_far() < count + 3 and time.monotonic() < end:
                time.sleep(0.1)
            victim = workers.pop(0)
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
            workers.append(worker())
            if kill == 0:
                command_line.kill()
                command_line.wait()
                command_line = begun()
        told = command_line.communicate(timeout=400)[1]
        assert command_line.returncode == 0, told[-3000:]
        trials = optuna.load_study(study_name="animals", storage=get_engine_url(url)).trials
        assert counted(trials) == total
        assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        once = [t for t in trials if t.state in states and "repeats" not in t.user_attrs]
        twice = len(once) - len({str(sorted(t.params.items())) for t in once})
        assert twice == 0
        figure(
            "engine death",
            f"Dask, 2 workers, {kills} kills of them, 1 of the command: {counted(trials)} of {total}, "
            f"{twice} measured twice",
        )
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()
