"""`python -m rag_opt.study [key=value ...]`: run or resume a study; see --help for groups and choices."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rag_opt import environment
from rag_opt.config import FOLDER, NAME, quoted
from rag_opt.errors import RagOptError, StudyError
from rag_opt.shell import Refused, run_hydra, search_path
from rag_opt.trust import build, plain

if TYPE_CHECKING:
    import optuna

    from rag_opt.plan import Plan
    from rag_opt.progress import Screen
    from rag_opt.report import Summary


FINALISTS = 3
"""Of a Pareto front so many are timed."""


@dataclass(frozen=True)
class Outcome:
    """A study's result in a line of a comparison; `error` says why there is none."""

    name: str
    overrides: str
    metric: str = ""
    best: float | None = None
    test: float | None = None
    test_baseline: float | None = None
    trials: int = 0
    seconds: float = 0.0
    error: str = ""
    maximize: bool = True


def run(overrides: Sequence[str], variant: str = "") -> Outcome:
    """Run or resume the study that these overrides describe, and leave its report; raises a RagOptError."""
    from rag_opt.progress import Screen

    with Screen() as screen:
        with environment.no_collection():
            from rag_opt.plan import planned
            from rag_opt.storage import locked

            environment.quiet_optuna()
            plan = planned(overrides, variant)
        screen.say(_greeting(plan))
        try:
            with locked(plan.settings.folder):
                summary = _worked(plan, screen)
        finally:
            plan.dev.store.settle()
    from rag_opt import report

    found = summary.confirmation
    return Outcome(
        plan.settings.name,
        variant,
        plan.objective.targets[0].name,
        summary.best.values[0] if summary.best else None,
        found.best if found else None,
        found.baseline if found else None,
        sum(summary.counts.values()),
        summary.seconds,
        "" if summary.front else report.conclusion(summary),
        plan.objective.directions[0] == "maximize",
    )


def _greeting(plan: Plan) -> str:
    settings, dev, test = plan.settings, plan.dev.questions, plan.test.questions
    targets = ", ".join(target.name for target in plan.objective.targets)
    return (
        f"{settings.name}: {len(plan.dataset.documents):,} documents, {dev.count} questions to search with, "
        f"{test.count} kept to confirm; {len(plan.space.parameters)} parameters, "
        f"{settings.n_trials} trials for {targets}"
    )


def _worked(plan: Plan, screen: Screen) -> Summary:
    from optuna.study import StudyDirection

    from rag_opt.session import Session
    from rag_opt.storage import check_fingerprints, close, close_zombies, opened, places_taken

    settings = plan.settings
    # Modules live as long as the process: no collection needs to look at them again.
    gc.freeze()
    url = str(plain(plan.config.storage.url)).replace("{folder}", settings.folder.as_posix())
    study = opened(url, settings.name, [StudyDirection[d.upper()] for d in plan.objective.directions])
    check_fingerprints(study, plan.fingerprints, settings.folder)
    study.pruner = build(plan.config.pruner, plain(plan.config.trusted_modules))
    zombies = close_zombies(study)
    if zombies or places_taken(study):
        repeated = f"; {len(zombies)} interrupted, to be repeated" if zombies else ""
        screen.say(f"resumed: {places_taken(study)} of {settings.n_trials} trials are done{repeated}")
    with environment.no_collection():
        tracker = _tracker(plan, study)
    session = Session(plan, study, screen, [tracker] if tracker else [])
    try:
        session.run()
        summary = _finished(plan, study, screen, tracker)
        close(study)
        return summary
    except BaseException as error:
        if tracker:
            tracker.reconcile(study)
            tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", {}, {})
        if isinstance(error, OSError):
            raise StudyError(
                f"{settings.folder}: can't be written: {error}; the same command goes on from here"
            ) from error
        raise


def _tracker(plan: Plan, study: optuna.Study) -> Any:
    node = plain(plan.config.tracking)
    if not node["enabled"]:
        return None
    from rag_opt.tracking import connected

    targets = tuple(target.name for target in plan.objective.targets)
    tracker = connected(str(node["uri"]), str(node["artifacts"]), node["experiment"], plan.settings.folder, targets)
    if tracker is not None:
        dev = {query.id: query.text for query in plan.dev.questions.queries.items}
        tracker.open(study, {**plan.fingerprints, "seed": str(plan.settings.seed)}, plan.dataset, dev)
    return tracker


def _finished(plan: Plan, study: optuna.Study, screen: Screen, tracker: Any) -> Summary:
    from omegaconf import OmegaConf

    from rag_opt import report
    from rag_opt.search_space import values_of, words
    from rag_opt.session import measured_config

    summary = _summary(plan, study)
    folder = plan.settings.folder
    shown = summary.front[0] if summary.front else None
    given = words(values_of(shown.params) if shown else plan.baseline)
    mermaid = plan.dev.pipeline(given).mermaid()
    texts = {"report.md": report.markdown(summary, study, mermaid, plan.fingerprints), "pipeline.mmd": mermaid}
    if shown:
        texts["best.yaml"] = report.best_yaml(summary, measured_config([*plan.dev.base, *given]))
    for name in ("report.md", "best.yaml"):
        if name in texts:
            (folder / name).write_text(texts[name], "utf-8")
    texts["search_space.yaml"] = OmegaConf.to_yaml(plan.config.search_space)
    report.printed(summary, study, screen.console)
    if tracker:
        test = {f"test.{summary.targets[0]}": summary.confirmation.best} if summary.confirmation else {}
        for name, latency in summary.latencies.items():
            test |= {f"{name}.latency_p50": latency.p50, f"{name}.latency_p95": latency.p95}
        dev = dict(zip(summary.targets, summary.best.values, strict=True)) if summary.best else {}
        tracker.close("FINISHED", texts, {**{f"best.{name}": value for name, value in dev.items()}, **test})
    return summary


def _summary(plan: Plan, study: optuna.Study) -> Summary:
    from rag_opt import report

    front = report.front_of(study)
    baseline = report.baseline_of(study)
    best = front[0] if len(plan.objective.targets) == 1 and front else None
    hits, misses = sum(plan.dev.store.hits.values()), sum(plan.dev.store.misses.values())
    return report.Summary(
        plan.settings.name,
        plan.settings.folder,
        tuple(target.name for target in plan.objective.targets),
        best,
        baseline,
        tuple(front),
        report.counts_of(study),
        report.seconds_of(study),
        _confirmation(plan, best, baseline),
        _latencies(plan, [*front[:FINALISTS], *([baseline] if baseline and baseline not in front else [])]),
        _commands(plan, front),
        f"{hits:,} of {hits + misses:,} stage results came from the store",
        next((str(t.user_attrs["reason"]) for t in study.get_trials(deepcopy=False) if "reason" in t.user_attrs), ""),
    )


def _confirmation(plan: Plan, best: Any, baseline: Any) -> Any:
    from rag_opt.confirm import confirmed
    from rag_opt.search_space import values_of, words

    if best is None or baseline is None:
        return None
    target, direction = plan.objective.targets[0], plan.objective.directions[0]
    ours, theirs = (plan.test.measured(words(values_of(trial.params))) for trial in (best, baseline))
    return confirmed(target.name, direction, ours, theirs, plan.settings.seed)


def _latencies(plan: Plan, finalists: Sequence[Any]) -> dict[str, Any]:
    """By name (best, baseline, else trial N) what a question costs; a pipeline that pays for questions is not timed."""
    from rag_opt.progress import say
    from rag_opt.report import BASELINE, ORIGIN
    from rag_opt.search_space import values_of, words

    found = {}
    for place, trial in enumerate(finalists):
        name = "baseline" if trial.user_attrs.get(ORIGIN) == BASELINE else f"trial {trial.number}"
        try:
            latency = plan.test.timed(words(values_of(trial.params)))
        except Exception as error:
            # The study's result stands, whatever a component does with a single question.
            say(f"{name} could not be timed: {type(error).__name__}: {error}"[:300])
            continue
        if latency is not None:
            found["best" if place == 0 and len(plan.objective.targets) == 1 else name] = latency
    return found


def _commands(plan: Plan, front: Sequence[Any]) -> dict[str, str]:
    from rag_opt.search_space import values_of, words
    from rag_opt.session import replay_command
    from rag_opt.storage import hidden

    node, settings = plain(plan.config.tracking), plan.settings
    url = str(plain(plan.config.storage.url)).replace("{folder}", settings.folder.as_posix())
    longer = [word for word in plan.dev.base if not word.startswith("n_trials=")]
    commands = {}
    if front:
        commands["replay"] = replay_command([*plan.dev.base, *words(values_of(front[0].params))])
    if "/" in settings.name:
        # A study of a multirun goes on by itself under its whole name.
        longer = [*(word for word in longer if not word.startswith("name=")), f"name='{settings.name}'"]
    commands["continue"] = f"python -m rag_opt.study {quoted([*longer, f'n_trials={2 * settings.n_trials}'])}"
    commands["dashboard"] = f"optuna-dashboard {quoted([hidden(url)])}"
    if node["enabled"]:
        commands["mlflow"] = f"mlflow ui --backend-store-uri {quoted([str(node['uri'])])}"
    return commands


def job(config: DictConfig) -> Outcome:
    """One Hydra job; in a multirun a refused study is told and the others go on."""
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
        print(f"{variant}: {error}", file=sys.stderr)
        return Outcome(str(config.name), variant, error=str(error))


def main() -> None:
    """The command line."""
    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(job))


if __name__ == "__main__":
    main()
    environment.leave()
