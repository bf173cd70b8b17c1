"""Many workers on one study: started, watched, started again when they die, stopped together.

The crew measures nothing. What it shows and mirrors comes from the storage, so it may die as well.
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from rag_opt.config.trust import build, plain
from rag_opt.console.endings import Terminated
from rag_opt.errors import ConfigError, StudyError
from rag_opt.storages.attributes import attributes_of
from rag_opt.storages.databases import sqlite_path
from rag_opt.storages.moment import FINISHED, Moment
from rag_opt.storages.processes import crew_of
from rag_opt.study import failures, outlook, terminator
from rag_opt.study.at_work import AtWork
from rag_opt.study.messages import told
from rag_opt.study.scheduler import measured
from rag_opt.study.spending import Spending
from rag_opt.workers.launchers import REFUSED, End, cores

if TYPE_CHECKING:
    from rag_opt.console.progress import Line
    from rag_opt.study.plan import Plan

POLL = 0.25
"""Seconds between two looks at the storage."""

GIVE_UP_AFTER = 10
"""Deaths in a row, without a trial measured by anyone, after which that is given up."""

PATIENCE = 20.0
"""Seconds that workers have to give their trials back before they are killed."""


def wanted(plan: Plan) -> bool:
    """Whether the study is to be run by workers; raises ConfigError where their machines can't share its storage."""
    launcher = launcher_of(plan)
    if launcher.spans_hosts and sqlite_path(plan.storage_url) is not None:
        raise ConfigError(
            "launcher.address: workers of other machines can't share a SQLite file; give them a PostgreSQL server: "
            "storage.url=postgresql://user@host/database (the password in PGPASSWORD or ~/.pgpass)"
        )
    return plan.settings.n_workers > 1 or launcher.spans_hosts


def launcher_of(plan: Plan) -> Any:
    """What starts the workers."""
    return build(plan.config.launcher, plain(plan.config.trusted_modules))


@dataclass
class Workers(AtWork):
    """The workers that one command has started."""

    launcher: Any = field(init=False)
    start: float = field(default_factory=time.monotonic)
    _deaths: int = 0
    _since: int = 0
    _seen: set[int] = field(default_factory=set)
    _ends: dict[int, End] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.launcher = launcher_of(self.plan)

    def run(self) -> None:
        """Trials by n_workers processes until there are no more; raises StudyError when they only die."""
        now = Moment(self.study)
        self._since = len(now.get_trials())
        self._seen = {trial.number for trial in now.get_trials(states=FINISHED)}
        count = self.plan.settings.n_workers
        try:
            with self.screen.trials(self.plan.settings.n_trials, measured(now)) as line:
                self.launcher.open(count)
                for worker in range(count):
                    self._begin(worker)
                self.screen.say(f"{count} workers; what they say is in {self._log(0).parent}")
                while len(self._ends) < count:
                    self._watched(line)
                    time.sleep(POLL)
                self._told(line)
        except BaseException as error:
            gently = isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated)
            self._stopped(signal.SIGINT if gently else signal.SIGTERM)
            raise
        finally:
            self.launcher.close()
        self._say_why()

    def _watched(self, line: Line) -> None:
        self._told(line)
        for worker in range(self.plan.settings.n_workers):
            end = self._ends.get(worker) or self.launcher.ended(worker)
            if end is None or worker in self._ends:
                continue
            if end.status == 0:
                self._ends[worker] = end
            elif end.status == REFUSED:
                failures.check(Moment(self.study), self._since)
                raise StudyError(f"worker {worker} was refused: {_last_line(end)}")
            else:
                self._died(worker, end)

    def _died(self, worker: int, end: End) -> None:
        self._deaths += 1
        if self._deaths >= GIVE_UP_AFTER:
            raise StudyError(
                f"workers died {GIVE_UP_AFTER} times in a row ({end.why}) and no trial was measured; the last "
                f"one said: {_last_line(end)}\n  its log is {self._log(worker)}; the same command goes on from here"
            )
        self.screen.say(f"worker {worker} died ({end.why}); another takes its place")
        self._begin(worker)

    def _begin(self, worker: int) -> None:
        given, settings = list(self.plan.dev.base), self.plan.settings
        # A study of a multirun has a name that its command line alone doesn't give.
        words = [word for word in given if not word.startswith(("name=", "timeout="))] + [f"name='{settings.name}'"]
        if settings.timeout is not None:
            left = settings.timeout - (time.monotonic() - self.start)
            words.append(f"timeout={max(left, 1.0) / 60}")
        # Of machines elsewhere nothing is known here.
        if settings.threads is None and not self.launcher.spans_hosts:
            words.append(f"threads={max(1, cores() // settings.n_workers)}")
        self._begun.add(worker)
        self.launcher.begin(worker, [self.gate.me, self.crew.mlflow, *words], self._log(worker))

    def _told(self, line: Line) -> None:
        """Say what has finished since, and mirror it."""
        now = Moment(self.study)
        new = [trial for trial in now.get_trials(states=FINISHED) if trial.number not in self._seen]
        line.describe(f"{self.plan.settings.n_workers} workers")
        for trial in new:
            self._seen.add(trial.number)
            noted = attributes_of(trial)
            if not noted.interrupted and not noted.given_up:
                self._deaths = 0
            left = self.plan.settings.n_trials - measured(now)
            failed = trial.state == TrialState.FAIL and noted.repeats is None
            line.advance(
                told(self.plan, now, trial), left, measured(now), after=outlook.seconds(self.plan, now), failed=failed
            )
            if crew_of(trial).name == self.gate.me:
                for callback in self.callbacks:
                    callback(self.study, trial)

    def _stopped(self, number: signal.Signals) -> None:
        """Have the workers finish their batch (SIGINT) or stop (SIGTERM), and wait for them."""
        if not self._begun:
            return
        if number == signal.SIGINT:
            self.screen.say("stopping the workers after their batch of questions; Ctrl-C again stops them now")
        until = time.monotonic() + (math.inf if number == signal.SIGINT else PATIENCE)
        self.launcher.signal(number)
        waiting = True
        while waiting:
            try:
                time.sleep(POLL)
                waiting = time.monotonic() < until and self._alive()
            except KeyboardInterrupt:
                self.launcher.signal(signal.SIGTERM)
                until = time.monotonic() + PATIENCE

    def _alive(self) -> bool:
        return any(self.launcher.ended(worker) is None for worker in self._begun)

    def _say_why(self) -> None:
        spending = Spending(self.plan, self.study)
        if why := terminator.line(self.study):
            self.screen.say(f"{why}; stopping=none goes on from here")
        if measured(Moment(self.study)) < self.plan.settings.n_trials and not spending.allowed(Moment(self.study)):
            self.screen.say(f"{spending.budget.empty}; the search stops here, a greater budget goes on from here")

    def _log(self, worker: int) -> Any:
        return self.plan.settings.folder / "workers" / f"{worker}.log"


def _last_line(end: End) -> str:
    lines = end.words.splitlines()
    return lines[-1].removeprefix("error: ") if lines else "nothing"
