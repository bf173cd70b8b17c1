"""Many workers on one study: started, watched, started again when they die, stopped together.

This process measures nothing. What it shows and mirrors comes from the storage, so it may die as well.
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from rag_opt.config.trust import build, to_plain
from rag_opt.console.exit_status import Terminated
from rag_opt.errors import ConfigError, StudyError
from rag_opt.storages.attributes import get_attributes
from rag_opt.storages.databases import get_sqlite_path
from rag_opt.storages.processes import get_worker_origin
from rag_opt.storages.snapshot import FINISHED, StudySnapshot
from rag_opt.study import eta, failures, terminator
from rag_opt.study.messages import format_trial
from rag_opt.study.runtime import Runtime
from rag_opt.study.scheduler import count_measured
from rag_opt.study.spending import Spending
from rag_opt.workers.launchers import REFUSED, End, count_cores

if TYPE_CHECKING:
    from rag_opt.console.progress import Line
    from rag_opt.study.plan import Plan

POLL = 0.25
"""Seconds between two looks at the storage."""

GIVE_UP_AFTER = 10
"""Deaths in a row, without a trial measured by anyone, after which that is given up."""

# Longer than the launchers' own, so that Dask's tasks have killed what is left by then.
PATIENCE = 20.0
"""Seconds that workers have to give their trials back before they are killed."""


def needs_workers(plan: Plan) -> bool:
    """Whether the study is to be run by workers; raises ConfigError where their machines can't share its storage."""
    launcher = build_launcher(plan)
    if launcher.spans_hosts and get_sqlite_path(plan.storage_url) is not None:
        raise ConfigError(
            "launcher.address: workers of other machines can't share a SQLite file; give them a PostgreSQL server: "
            "storage.url=postgresql://user@host/database (the password in PGPASSWORD or ~/.pgpass)"
        )
    return plan.settings.n_workers > 1 or launcher.spans_hosts


def build_launcher(plan: Plan) -> Any:
    """What starts the workers."""
    return build(plan.config.launcher, to_plain(plan.config.trusted_modules))


@dataclass
class Workers(Runtime):
    """The workers that one command has started."""

    launcher: Any = field(init=False)
    start: float = field(default_factory=time.monotonic)
    _deaths: int = 0
    _since: int = 0
    _seen: set[int] = field(default_factory=set)
    _ends: dict[int, End] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.launcher = build_launcher(self.plan)

    def run(self) -> None:
        """Trials by n_workers processes until there are no more; raises StudyError when they only die."""
        now = StudySnapshot(self.study)
        self._since = len(now.get_trials())
        self._seen = {trial.number for trial in now.get_trials(states=FINISHED)}
        count = self.plan.settings.n_workers
        try:
            with self.screen.show_trials(self.plan.settings.n_trials, count_measured(now)) as line:
                self.launcher.open(count)
                for worker in range(count):
                    self._start_worker(worker)
                self.screen.report_line(f"{count} workers; what they say is in {self._get_log_path(0).parent}")
                while len(self._ends) < count:
                    self._watch_workers(line)
                    time.sleep(POLL)
                # What was told between the last look and the last worker's end.
                self._report_trials(line)
        except BaseException as error:
            # Terminated is a KeyboardInterrupt as well, but SIGTERM and SIGHUP wait for no batch.
            gently = isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated)
            self._stop_workers(signal.SIGINT if gently else signal.SIGTERM)
            raise
        finally:
            self.launcher.close()
        self._report_reason()

    def _watch_workers(self, line: Line) -> None:
        # First: a trial that was measured since sets the count of deaths back.
        self._report_trials(line)
        for worker in range(self.plan.settings.n_workers):
            end = self._ends.get(worker) or self.launcher.poll_worker(worker)
            if end is None or worker in self._ends:
                continue
            if end.status == 0:
                self._ends[worker] = end
            elif end.status == REFUSED:
                # An outage ends all workers; said as such it tells more than the last line of one of them.
                failures.check_outage(StudySnapshot(self.study), self._since)
                raise StudyError(f"worker {worker} was refused: {_get_last_line(end)}")
            else:
                self._restart_worker(worker, end)

    def _restart_worker(self, worker: int, end: End) -> None:
        self._deaths += 1
        if self._deaths >= GIVE_UP_AFTER:
            raise StudyError(
                f"workers died {GIVE_UP_AFTER} times in a row ({end.why}) and no trial was measured; the last "
                f"one said: {_get_last_line(end)}\n  its log is {self._get_log_path(worker)}; the same command goes "
                "on from here"
            )
        self.screen.report_line(f"worker {worker} died ({end.why}); another takes its place")
        self._start_worker(worker)

    def _start_worker(self, worker: int) -> None:
        given, settings = list(self.plan.dev.base), self.plan.settings
        # A study of a multirun has a name that its command line alone doesn't give.
        words = [word for word in given if not word.startswith(("name=", "timeout="))] + [f"name='{settings.name}'"]
        # A worker counts from its own start, so one that is started again is given what is left of the command's time.
        if settings.timeout is not None:
            left = settings.timeout - (time.monotonic() - self.start)
            # In minutes, as the configuration has it; 0 would be refused.
            words.append(f"timeout={max(left, 1.0) / 60}")
        # Of machines elsewhere nothing is known here.
        if settings.threads is None and not self.launcher.spans_hosts:
            words.append(f"threads={max(1, count_cores() // settings.n_workers)}")
        self.launcher.start_worker(worker, [self.member.me, self.origin.mlflow, *words], self._get_log_path(worker))
        self._begun.add(worker)

    def _report_trials(self, line: Line) -> None:
        """Say what has finished since, and mirror it."""
        now = StudySnapshot(self.study)
        new = [trial for trial in now.get_trials(states=FINISHED) if trial.number not in self._seen]
        line.describe(f"{self.plan.settings.n_workers} workers")
        for trial in new:
            self._seen.add(trial.number)
            noted = get_attributes(trial)
            # Deaths leave finished trials, too, which must not pass for progress.
            if not noted.interrupted and not noted.given_up:
                self._deaths = 0
            left = self.plan.settings.n_trials - count_measured(now)
            failed = trial.state == TrialState.FAIL and noted.repeats is None
            line.advance(
                format_trial(self.plan, now, trial),
                left,
                count_measured(now),
                after=eta.estimate_seconds(self.plan, now),
                failed=failed,
            )
            # Trials of other commands are mirrored by those; here they would get a second run.
            if get_worker_origin(trial).name == self.member.me:
                for callback in self.callbacks:
                    callback(self.study, trial)

    def _stop_workers(self, number: signal.Signals) -> None:
        """Have the workers finish their batch (SIGINT) or stop (SIGTERM), and wait for them."""
        # Dask's cluster may not have been reached: then there is nothing to signal by.
        if not self._begun:
            return
        if number == signal.SIGINT:
            self.screen.report_line("stopping the workers after their batch of questions; Ctrl-C again stops them now")
        # A batch may take any time with a slow model: after Ctrl-C only a second one sets a limit.
        until = time.monotonic() + (math.inf if number == signal.SIGINT else PATIENCE)
        self.launcher.signal(number)
        waiting = True
        while waiting:
            try:
                time.sleep(POLL)
                waiting = time.monotonic() < until and self._has_living()
            except KeyboardInterrupt:
                self.launcher.signal(signal.SIGTERM)
                until = time.monotonic() + PATIENCE

    def _has_living(self) -> bool:
        return any(self.launcher.poll_worker(worker) is None for worker in self._begun)

    def _report_reason(self) -> None:
        spending = Spending(self.plan, self.study)
        if why := terminator.format_stop_reason(self.study):
            self.screen.report_line(f"{why}; stopping=none goes on from here")
        if count_measured(StudySnapshot(self.study)) < self.plan.settings.n_trials and not spending.can_start_trial(
            StudySnapshot(self.study)
        ):
            self.screen.report_line(
                f"{spending.budget.empty}; the search stops here, a greater budget goes on from here"
            )

    def _get_log_path(self, worker: int) -> Any:
        return self.plan.settings.folder / "workers" / f"{worker}.log"


def _get_last_line(end: End) -> str:
    lines = end.words.splitlines()
    return lines[-1].removeprefix("error: ") if lines else "nothing"
