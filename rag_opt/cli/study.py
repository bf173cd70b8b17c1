"""`python -m rag_opt.study [key=value ...]`: run or resume a study; see --help for groups and choices."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.console.screens import report_line
from rag_opt.console.secrets import hide_secrets
from rag_opt.console.terminal import build_console, print_error, print_first_line, sanitize_line
from rag_opt.errors import RagOptError, StorageError, StudyError
from rag_opt.system import environment
from rag_opt.system.permissions import format_owner

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig

    from rag_opt.analysis.findings import Findings
    from rag_opt.console.progress import Screen
    from rag_opt.storages.locks import Member
    from rag_opt.study.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """A study that was run: its findings, or in `error` why there is none to recommend; `url`: its storage."""

    name: str
    folder: Path
    findings: Any = None
    error: str = ""
    # Not in the repr: it may hold a password.
    url: str = field(default="", repr=False)


def run_study(overrides: Sequence[str], variant: str = "", *, quiet: bool = False) -> Outcome:
    """Run or resume the study that these overrides describe, and leave its report; raises a RagOptError.

    The result is printed, unless `quiet`.
    """
    from rag_opt.console.progress import Screen

    with Screen() as screen:
        with environment.disable_gc():
            from rag_opt.study.messages import format_greeting
            from rag_opt.study.plan import build_plan

            environment.silence_optuna()
            plan = build_plan(overrides, variant)
        screen.report_line(format_greeting(plan))
        if plan.settings.forecast:
            _print_forecast(plan, screen)
            return Outcome(plan.settings.name, plan.settings.folder)
        try:
            findings, error = _run_session(plan, screen, quiet=quiet)
        finally:
            plan.resources.store.save_usage()
    if plan.settings.promote and "ask" in findings.commands:
        _promote(plan)
    return Outcome(plan.settings.name, plan.settings.folder, findings, error, plan.storage_url)


def _promote(plan: Plan) -> None:
    """Register what the study recommends; its result stands whatever comes of that."""
    from rag_opt.config.trust import to_plain
    from rag_opt.production.promotion import format_promotion, promote_study

    try:
        uri = to_plain(plan.config.tracking)["uri"]
        found = promote_study(plan.settings.folder, tracking=uri, storage=plan.storage_url)
    except RagOptError as error:
        print_error(error, "the study is finished, and not promoted: ")
        return
    for line in format_promotion(found):
        print(sanitize_line(line))


def _print_forecast(plan: Plan, screen: Screen) -> None:
    from rag_opt.config.compose import quote_overrides
    from rag_opt.study.conclusion import format_own_overrides
    from rag_opt.study.forecast import compute_forecast

    told = compute_forecast(plan)
    screen.stop_live()
    (output := build_console()).print(told.build_table())
    lines = told.format_lines(plan.settings.budget_tokens, plan.settings.budget_usd)[1:]
    for line in [*lines, f"run it: python -m rag_opt.study {quote_overrides(format_own_overrides(plan, 'forecast'))}"]:
        output.print(sanitize_line(line), markup=False)


def _run_session(plan: Plan, screen: Screen, *, quiet: bool) -> tuple[Findings, str]:
    """The findings, and why there is nothing to recommend, "" where there is."""
    from rag_opt.storages.locks import MIRROR
    from rag_opt.storages.processes import WorkerOrigin
    from rag_opt.study.lifecycle import join_study
    from rag_opt.study.loop import Session
    from rag_opt.study.score_recovery import recover_scores
    from rag_opt.system.signals import Stopping
    from rag_opt.workers import pool

    shared = pool.needs_workers(plan)
    # By now everything heavy is loaded, and the trials' collections would look at all of it.
    environment.freeze_modules()
    with _translate_os_errors(plan), Stopping(screen.report_line) as stopping, join_study(plan) as (study, member):
        _report_resumed(plan, study, member, screen, shared=shared)
        recover_scores(plan, study)
        with environment.disable_gc(), member.take_turn(MIRROR):
            tracker = _connect_tracker(plan, study, member)
        callbacks, origin = (
            ([tracker], WorkerOrigin(member.me, tracker.parent_id)) if tracker else ([], WorkerOrigin(member.me))
        )
        at_work = pool.Workers if shared else Session
        try:
            at_work(plan, study, screen, member, stopping, callbacks, origin).run()
            return _finish_study(plan, study, member, screen, tracker, quiet=quiet)
        except BaseException as error:
            if tracker:
                # A file that is lost can't be read, nor one that others keep from a process which is to end.
                with suppress(StorageError, KeyboardInterrupt), member.take_turn(MIRROR):
                    tracker.reconcile(study, member)
                tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", {}, {}, ())
            raise


@contextmanager
def _translate_os_errors(plan: Plan) -> Iterator[None]:
    """What a full or lost disk raises becomes a StudyError."""
    try:
        yield
    except OSError as error:
        foreign = format_owner(plan.settings.folder, *([Path(str(error.filename))] if error.filename else []))
        raise StudyError(
            f"{plan.settings.folder}: can't be written: {error}{foreign}; the same command goes on from here"
        ) from error


def _report_resumed(plan: Plan, study: optuna.Study, member: Member, screen: Screen, *, shared: bool) -> None:
    """Say what is there already and what the rest will cost; raises ComponentError for what it can't use."""
    from rag_opt.storages.locks import Life
    from rag_opt.storages.processes import get_worker
    from rag_opt.storages.snapshot import StudySnapshot, count_finished
    from rag_opt.study import failures
    from rag_opt.study.preparation import prepare_trials
    from rag_opt.study.scheduler import get_running

    settings, now = plan.settings, StudySnapshot(study)
    alive = [trial for trial in get_running(now) if member.get_life(get_worker(trial)) is Life.ALIVE]
    lost = [trial for trial in failures.find_retriable(now) if failures.get_outage(trial) is not None]
    dead = len(get_running(now)) - len(alive)
    if get_running(now) or count_finished(now) or lost:
        repeated = f"; {dead} interrupted, to be repeated" if dead else ""
        again = f"; {len(lost)} lost to what surrounds the study, to be tried again" if lost else ""
        others = f"; {len(alive)} under way in other processes" if alive else ""
        screen.report_line(
            f"resumed: {count_finished(now)} of {settings.n_trials} trials are done{repeated}{again}{others}"
        )
    if count_finished(now) < settings.n_trials:
        prepare_trials(plan, study, screen, shared=shared)


def _connect_tracker(plan: Plan, study: optuna.Study, member: Member) -> Any:
    from rag_opt.config.trust import to_plain

    node = to_plain(plan.config.tracking)
    if not node["enabled"]:
        return None
    from rag_opt.config.compose import get_choices
    from rag_opt.config.stages import get_stages
    from rag_opt.tracking.connection import connect_mlflow

    targets = tuple(target.name for target in plan.objective.targets)
    tracker = connect_mlflow(
        str(node["uri"]), str(node["artifacts"]), node["experiment"], plan.settings.folder, targets
    )
    if tracker is not None:
        stages = get_stages(plan.config)
        tracker.groups = {group: choice for group, choice in get_choices(plan.dev.base).items() if group in stages}
        tracker.fetch = plan.get_files(study).fetch
        dev = {query.id: query.text for query in plan.dev.questions.queries.items}
        params = {**plan.fingerprints, "seed": str(plan.settings.seed)}
        tracker.open(study, member, params, plan.dataset, dev)
        prompts = to_plain(plan.config.judge.prompts)
        judged = {metric.name.removeprefix("judge.") for metric in plan.objective.metrics}
        tracker.link_prompts({name for aspect, name in prompts.items() if aspect in judged})
    return tracker


def _repair_tracker(plan: Plan, study: optuna.Study, member: Member, tracker: Any) -> Any:
    """The tracker, its runs those of the trials; another one where its database has vanished meanwhile."""
    from rag_opt.config.trust import to_plain
    from rag_opt.tracking.mlflow_file import reopen

    if tracker.database.gone:
        reopen(str(to_plain(plan.config.tracking)["uri"]))
        return _connect_tracker(plan, study, member) or tracker
    tracker.reconcile(study, member)
    return tracker


def _finish_study(
    plan: Plan, study: optuna.Study, member: Member, screen: Screen, tracker: Any, *, quiet: bool
) -> tuple[Findings, str]:
    from rag_opt.analysis.finished import FILES, PAGE
    from rag_opt.reporting import report, summary
    from rag_opt.storages.locks import MIRROR
    from rag_opt.storages.opening import lock_folder
    from rag_opt.study import sampling
    from rag_opt.study.conclusion import build_findings

    # Of several processes that ran it here each concludes, one after the other.
    with lock_folder(plan.settings.folder):
        plan.get_files(study).restore()
        if tracker:
            with member.take_turn(MIRROR):
                tracker = _repair_tracker(plan, study, member, tracker)
        findings = build_findings(plan, study)
        if tracker:
            _write_traces(plan, study, tracker, findings)
        figures = report.write_report(findings, study, plan.settings.folder)
    screen.stop_live()
    now = findings.get_snapshot(study)
    if not quiet:
        output = build_console()
        summary.print_summary(findings, now, output)
        output.print(f"{'open:':<10} {plan.settings.folder / PAGE}", markup=False)
    if tracker:
        files = [plan.settings.folder / name for name in FILES]
        texts = {"pipeline.mmd": findings.mermaid, "search_space.yaml": findings.space}
        texts |= {f"figures/{name}.json": text for name, text in figures.items()}
        tags = report.collect_tags(findings, now, plan.config) | sampling.get_sampler_tag()
        tracker.close("FINISHED", texts, report.collect_metrics(findings, now), files, tags)
    return findings, "" if "replay" in findings.commands else summary.format_conclusion(findings, now)


def _write_traces(plan: Plan, study: optuna.Study, tracker: Any, findings: Findings) -> None:
    """The questions of the finalists, or of all complete trials, as traces."""
    from rag_opt.analysis import history
    from rag_opt.console.progress import track
    from rag_opt.study.finalists import get_trial_overrides
    from rag_opt.tracking.traces import Tracer

    if (which := plan.settings.traces) == "none":
        return
    confirmed = [arm.trial for arm in findings.confirmation.arms] if findings.confirmation else []
    candidates = history.rank_candidates(findings.get_snapshot(study)) if which == "all" else []
    # Finalists are traced on the questions that decided, the others on those that they were searched on.
    wanted = [(number, plan.test, "test") for number in confirmed]
    wanted += [(trial.number, plan.dev, "dev") for trial in candidates]
    try:
        tracer = Tracer.create(tracker.client, tracker.experiment_id)
        with track("traces", sum(evaluator.questions.count for _, evaluator, _ in wanted)) as advance:
            for number, evaluator, split in wanted:
                tags = {"study": study.study_name, "trial": str(number), "split": split}
                pipeline = evaluator.make_pipeline(evaluator.compose_overrides(get_trial_overrides(study, number)))
                advance(tracer.write_traces(pipeline, evaluator.questions, tags, tracker.get_run_id(number)))
        tracer.flush()
    except Exception as error:
        # Whatever MLflow, its server or a component may raise: the study's result stands.
        report_line(f"traces can't be written: {type(error).__name__}: {error}"[:300])


def run_job(config: DictConfig) -> Outcome:
    """One Hydra job; in a multirun a refused study is told and the others go on."""
    from hydra.core.hydra_config import HydraConfig

    from rag_opt.cli.shell import Refused, read_words

    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode is not None and hydra_config.mode.name == "MULTIRUN"
    overrides = read_words(hydra_config)
    variant = hydra_config.job.override_dirname if multirun else ""
    try:
        outcome = run_study(overrides, variant)
        if outcome.error and not multirun:
            sys.exit(1)
        return outcome
    except RagOptError as error:
        if not multirun:
            raise Refused(error) from error
        print_error(error, f"{variant}: ")
        return Outcome(str(config.name), Path(), error=hide_secrets(str(error)))


def main() -> None:
    """The command line."""
    print_first_line(
        "rag_opt.study: reading the configuration and loading PyTorch, Haystack and MLflow, which takes some seconds"
    )
    import hydra

    from rag_opt.cli.shell import run_hydra
    from rag_opt.config.compose import FOLDER, NAME

    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(run_job))
