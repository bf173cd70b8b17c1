"""`python -m rag_opt.study [key=value ...]`: run or resume a study; see --help for groups and choices."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.console.secrets import hide
from rag_opt.console.terminal import begin, complain, console
from rag_opt.errors import RagOptError, StorageError, StudyError
from rag_opt.system import environment
from rag_opt.system.sharing import whose

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig

    from rag_opt.analysis.findings import Findings
    from rag_opt.console.progress import Screen
    from rag_opt.storages.locks import Gate
    from rag_opt.study.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """A study that was run: its findings, or in `error` why there is none to recommend; `url`: its storage."""

    name: str
    folder: Path
    findings: Any = None
    error: str = ""
    url: str = field(default="", repr=False)


def run(overrides: Sequence[str], variant: str = "", *, quiet: bool = False) -> Outcome:
    """Run or resume the study that these overrides describe, and leave its report; raises a RagOptError.

    The result is printed, unless `quiet`.
    """
    from rag_opt.console.progress import Screen

    with Screen() as screen:
        with environment.no_collection():
            from rag_opt.study.plan import planned

            environment.quiet_optuna()
            plan = planned(overrides, variant)
        screen.say(_greeting(plan))
        if plan.settings.forecast:
            _forecast(plan, screen)
            return Outcome(plan.settings.name, plan.settings.folder)
        try:
            findings, error = _worked(plan, screen, quiet=quiet)
        finally:
            plan.resources.store.settle()
    return Outcome(plan.settings.name, plan.settings.folder, findings, error, plan.storage_url)


def _forecast(plan: Plan, screen: Screen) -> None:
    from rag_opt.config.compose import quoted
    from rag_opt.console.terminal import inline
    from rag_opt.study.conclusion import typed
    from rag_opt.study.forecast import forecast

    told = forecast(plan)
    screen.rest()
    output = console()
    output.print(told.table())
    lines = told.lines(plan.settings.budget_tokens, plan.settings.budget_usd)[1:]
    for line in [*lines, f"run it: python -m rag_opt.study {quoted(typed(plan, 'forecast'))}"]:
        output.print(inline(line), markup=False)


def _greeting(plan: Plan) -> str:
    settings, dev, test = plan.settings, plan.dev.questions, plan.test.questions
    targets = ", ".join(target.name for target in plan.objective.targets)
    return (
        f"{settings.name}: {len(plan.dataset.documents):,} documents, {dev.count} questions to search with, "
        f"{test.count} kept to confirm; {len(plan.space.parameters)} parameters, "
        f"{settings.n_trials} trials for {targets}"
    )


def _worked(plan: Plan, screen: Screen, *, quiet: bool) -> tuple[Findings, str]:
    """The findings, and why there is nothing to recommend, "" where there is."""
    from rag_opt.storages.locks import MIRROR
    from rag_opt.storages.processes import Crew
    from rag_opt.study.entering import entered
    from rag_opt.study.loop import Session
    from rag_opt.study.recovery import recovered
    from rag_opt.system.signals import Stopping
    from rag_opt.workers import pool

    shared = pool.wanted(plan)
    # Modules live as long as the process: no collection needs to look at them again.
    gc.freeze()
    with _written(plan), Stopping(screen.say) as stopping, entered(plan) as (study, gate):
        _resumed(plan, study, gate, screen, shared=shared)
        recovered(plan, study)
        with environment.no_collection(), gate.alone(MIRROR):
            tracker = _tracker(plan, study, gate)
        callbacks, crew = ([tracker], Crew(gate.me, tracker.parent_id)) if tracker else ([], Crew(gate.me))
        at_work = pool.Workers if shared else Session
        try:
            at_work(plan, study, screen, gate, stopping, callbacks, crew).run()
            return _finished(plan, study, gate, screen, tracker, quiet=quiet)
        except BaseException as error:
            if tracker:
                # A file that is lost can't be read, nor one that others keep from a process which is to end.
                with suppress(StorageError, KeyboardInterrupt), gate.alone(MIRROR):
                    tracker.reconcile(study, gate)
                tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", {}, {}, ())
            raise


@contextmanager
def _written(plan: Plan) -> Iterator[None]:
    """What a full or lost disk raises becomes a StudyError."""
    try:
        yield
    except OSError as error:
        foreign = whose(plan.settings.folder, *([Path(str(error.filename))] if error.filename else []))
        raise StudyError(
            f"{plan.settings.folder}: can't be written: {error}{foreign}; the same command goes on from here"
        ) from error


def _resumed(plan: Plan, study: optuna.Study, gate: Gate, screen: Screen, *, shared: bool) -> None:
    """Say what is there already and what the rest will cost; raises ComponentError for what it can't use."""
    from rag_opt.storages.locks import Life
    from rag_opt.storages.moment import Moment, places_taken
    from rag_opt.storages.processes import worker_of
    from rag_opt.study import failures
    from rag_opt.study.scheduler import running

    settings, now = plan.settings, Moment(study)
    alive = [trial for trial in running(now) if gate.life(worker_of(trial)) is Life.ALIVE]
    lost = [trial for trial in failures.to_repeat(now) if failures.outage_of(trial) is not None]
    dead = len(running(now)) - len(alive)
    if running(now) or places_taken(now) or lost:
        repeated = f"; {dead} interrupted, to be repeated" if dead else ""
        again = f"; {len(lost)} lost to what surrounds the study, to be tried again" if lost else ""
        others = f"; {len(alive)} under way in other processes" if alive else ""
        screen.say(f"resumed: {places_taken(now)} of {settings.n_trials} trials are done{repeated}{again}{others}")
    if places_taken(now) < settings.n_trials:
        _ready(plan, study, screen, shared=shared)


def _ready(plan: Plan, study: optuna.Study, screen: Screen, *, shared: bool) -> None:
    """Say what the rest will cost; raises ComponentError for what is named and can't be used."""
    from rag_opt.cache.store import Store
    from rag_opt.study import preflight
    from rag_opt.study.forecast import forecast

    settings = plan.settings
    # Who only has workers measure needs no model in memory.
    resources = replace(plan.resources, store=Store(plan.resources.store.root)) if shared else plan.resources
    if settings.preflight:
        preflight.check(plan, resources, services=False)
    told = forecast(plan, study)
    for line in told.lines(settings.budget_tokens, settings.budget_usd):
        screen.say(line)
    if settings.preflight and told.asks:
        preflight.check(plan, resources, services=True)


def _tracker(plan: Plan, study: optuna.Study, gate: Gate) -> Any:
    from rag_opt.config.trust import plain

    node = plain(plan.config.tracking)
    if not node["enabled"]:
        return None
    from rag_opt.config.compose import STAGES, choices
    from rag_opt.tracking.connection import connected

    targets = tuple(target.name for target in plan.objective.targets)
    tracker = connected(str(node["uri"]), str(node["artifacts"]), node["experiment"], plan.settings.folder, targets)
    if tracker is not None:
        tracker.groups = {group: choice for group, choice in choices(plan.dev.base).items() if group in STAGES}
        tracker.fetch = plan.files(study).fetch
        dev = {query.id: query.text for query in plan.dev.questions.queries.items}
        params = {**plan.fingerprints, "seed": str(plan.settings.seed)}
        tracker.open(study, gate, params, plan.dataset, dev)
        prompts = plain(plan.config.judge.prompts)
        judged = {metric.name.removeprefix("judge.") for metric in plan.objective.metrics}
        tracker.link_prompts({name for aspect, name in prompts.items() if aspect in judged})
    return tracker


def _repaired(plan: Plan, study: optuna.Study, gate: Gate, tracker: Any) -> Any:
    """The tracker, its runs those of the trials; another one where its database has vanished meanwhile."""
    from rag_opt.config.trust import plain
    from rag_opt.tracking.mlflow_file import reopen

    if tracker.database.gone:
        reopen(str(plain(plan.config.tracking)["uri"]))
        return _tracker(plan, study, gate) or tracker
    tracker.reconcile(study, gate)
    return tracker


def _finished(
    plan: Plan, study: optuna.Study, gate: Gate, screen: Screen, tracker: Any, *, quiet: bool
) -> tuple[Findings, str]:
    from rag_opt.analysis.finished import FILES, PAGE
    from rag_opt.reporting import report, summary
    from rag_opt.storages.locks import MIRROR
    from rag_opt.storages.opening import locked
    from rag_opt.study import drawing
    from rag_opt.study.conclusion import concluded

    # Of several processes that ran it here each concludes, one after the other.
    with locked(plan.settings.folder):
        plan.files(study).restore()
        if tracker:
            with gate.alone(MIRROR):
                tracker = _repaired(plan, study, gate, tracker)
        findings = concluded(plan, study)
        if tracker:
            _traced(plan, study, tracker, findings)
        figures = report.written(findings, study, plan.settings.folder)
    screen.rest()
    now = findings.moment(study)
    if not quiet:
        output = console()
        summary.printed(findings, now, output)
        output.print(f"{'open:':<10} {plan.settings.folder / PAGE}", markup=False)
    if tracker:
        files = [plan.settings.folder / name for name in FILES]
        texts = {"pipeline.mmd": findings.mermaid, "search_space.yaml": findings.space}
        texts |= {f"figures/{name}.json": text for name, text in figures.items()}
        tags = report.tags(findings, now, plan.config) | drawing.given_sampler()
        tracker.close("FINISHED", texts, report.metrics(findings, now), files, tags)
    return findings, "" if "replay" in findings.commands else summary.conclusion(findings, now)


def _traced(plan: Plan, study: optuna.Study, tracker: Any, findings: Findings) -> None:
    """The questions of the finalists, or of all complete trials, as traces."""
    from rag_opt.analysis import history
    from rag_opt.console.progress import say, track
    from rag_opt.study.finalists import words_of

    which = plan.settings.traces
    if which == "none":
        return
    from rag_opt.tracking.traces import Tracer

    confirmed = [arm.trial for arm in findings.confirmation.arms] if findings.confirmation else []
    candidates = history.candidates(findings.moment(study)) if which == "all" else []
    wanted = [(number, plan.test, "test") for number in confirmed]
    wanted += [(trial.number, plan.dev, "dev") for trial in candidates]
    try:
        tracer = Tracer.opened(tracker.client, tracker.experiment_id)
        with track("traces", sum(bench.questions.count for _, bench, _ in wanted)) as advance:
            for number, bench, split in wanted:
                tags = {"study": study.study_name, "trial": str(number), "split": split}
                pipeline = bench.pipeline(bench.composed(words_of(study, number)))
                advance(tracer.write(pipeline, bench.questions, tags, tracker.run_of(number)))
        tracer.flush()
    except Exception as error:
        # Whatever MLflow, its server or a component may raise: the study's result stands.
        say(f"traces can't be written: {type(error).__name__}: {error}"[:300])


def job(config: DictConfig) -> Outcome:
    """One Hydra job; in a multirun a refused study is told and the others go on."""
    from hydra.core.hydra_config import HydraConfig

    from rag_opt.cli.shell import Refused, search_path

    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode is not None and hydra_config.mode.name == "MULTIRUN"
    overrides = [*search_path(hydra_config), *hydra_config.overrides.task]
    variant = hydra_config.job.override_dirname if multirun else ""
    try:
        outcome = run(overrides, variant)
        if outcome.error and not multirun:
            sys.exit(1)
        return outcome
    except RagOptError as error:
        if not multirun:
            raise Refused(error) from error
        complain(error, f"{variant}: ")
        return Outcome(str(config.name), Path(), error=hide(str(error)))


def main() -> None:
    """The command line."""
    begin("rag_opt.study: reading the configuration and loading PyTorch, Haystack and MLflow, which takes some seconds")
    import hydra

    from rag_opt.cli.shell import run_hydra
    from rag_opt.config.compose import FOLDER, NAME

    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(job))
