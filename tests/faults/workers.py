"""Processes at work on one study, forked when all modules are loaded, so that a kill can come at any moment of a trial.

Each child is a process of its own with its own connections and its own place among them; what it runs is the real
session. After `tell` it appends what was told to a ledger and has that forced to the disk.
"""

from __future__ import annotations

import faulthandler
import io
import json
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from rag_opt.console.progress import Screen
from rag_opt.storages.databases import get_engine_url
from rag_opt.study.lifecycle import join_study
from rag_opt.study.loop import Session
from rag_opt.study.plan import Plan, build_plan
from rag_opt.system.environment import silence_optuna
from rag_opt.system.signals import Stopping

FORK = multiprocessing.get_context("fork")
Prepare = Callable[[Session], None]


def ledger_line(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "params": trial.params,
    }


def child(plan: Plan, ledger: Path, prepare: Prepare | None, ready: Any) -> None:
    """Work on the study to its end; what is wrong goes to a file beside the ledger."""

    def told(_: optuna.Study, trial: FrozenTrial) -> None:
        line = (json.dumps(ledger_line(trial)) + "\n").encode()
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)
        os.fsync(file)
        os.close(file)

    # Whoever is started in a shell's background ignores Ctrl-C, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What ends here on purpose needs no dump of all threads.
    faulthandler.disable()
    try:
        with Screen(io.StringIO()) as screen, Stopping() as stopping, join_study(plan) as (study, member):
            session = Session(plan, study, screen, member, stopping, [told])
            if prepare is not None:
                prepare(session)
            ready.set()
            session.run()
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        ledger.with_name(f"{ledger.name}.{os.getpid()}.error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


@dataclass
class Worker:
    """A forked process; `ready` is set when its first trial is about to begin."""

    process: multiprocessing.Process
    ready: Any

    def join(self, seconds: float = 120) -> int:
        """Its exit status; a worker that hangs is a failure, not a wait."""
        self.process.join(seconds)
        if self.alive:
            self.kill()
            raise AssertionError(f"a worker has not ended after {seconds} s")
        return self.process.exitcode

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> bool:
        """SIGKILL; whether it met a living process."""
        met = self.alive
        if met:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return met


@cache
def plan_of(words: tuple[str, ...]) -> Plan:
    """The plan, made once and warm: the children differ in nothing but what they do with it."""
    silence_optuna()
    plan = build_plan(words)
    # What is imported on first use is there when they are forked.
    plan.dev.measure_config(plan.shown[0])
    return plan


def dies_in_trial(after: int, batch: int) -> Prepare:
    """The worker kills itself at the end of this batch of its trial number `after` (its own count, from 0)."""

    def prepare(session: Session) -> None:
        real, begun = session.measuring.check_batch, []

        def at_batch(trial: optuna.Trial, seen: Any, describe: Any, progress: Any) -> None:
            begun.extend([trial.number] if trial.number not in begun else [])
            if len(begun) > after and progress.batch >= batch:
                os.kill(os.getpid(), signal.SIGKILL)
            real(trial, seen, describe, progress)

        session.measuring.check_batch = at_batch

    return prepare


def start(words: Sequence[str], ledger: Path, prepare: Prepare | None = None) -> Worker:
    ready = FORK.Event()
    process = FORK.Process(target=child, args=(plan_of(tuple(words)), ledger, prepare, ready))
    process.start()
    return Worker(process, ready)


def errors(ledger: Path) -> list[str]:
    return [path.read_text() for path in sorted(ledger.parent.glob(f"{ledger.name}.*.error"))]


def ended_well(workers: Sequence[Worker], ledger: Path, seconds: float = 400) -> None:
    """All of them reach the end by themselves."""
    until = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
    late = [worker for worker in workers if worker.alive]
    for worker in late:
        worker.kill()
    assert not late, f"{len(late)} workers have not ended"
    assert [worker.process.exitcode for worker in workers] == [0] * len(workers), errors(ledger)


def killed_at_random(
    words: Sequence[str], ledger: Path, kills: int, at_once: int, seed: int, within: float = 0.4
) -> int:
    """SIGKILL so many workers at random moments while `at_once` are at work; gives how many met a living process.

    Most die within `within` seconds of their first trial, each eighth while it may still open the study.
    """
    drawn, met = random.Random(seed), 0
    workers = [start(words, ledger) for _ in range(at_once)]
    for kill in range(kills):
        victim = workers.pop(drawn.randrange(at_once))
        if kill % 8:
            while victim.alive and not victim.ready.is_set():
                time.sleep(0.002)
        time.sleep(drawn.uniform(0, within))
        met += victim.kill()
        assert victim.process.exitcode in (0, -signal.SIGKILL), errors(ledger)
        workers.append(start(words, ledger))
    ended_well(workers, ledger)
    return met


def told(ledger: Path) -> list[dict[str, Any]]:
    """What the workers have told and then written down; a line cut short by a kill was not."""
    rows = []
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def study_of(words: Sequence[str]) -> optuna.Study:
    """The study as Optuna itself reads it."""
    plan = plan_of(tuple(words))
    return optuna.load_study(study_name=plan.settings.name, storage=get_engine_url(plan.storage_url))
