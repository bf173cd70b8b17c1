"""A study whose search has ended → its findings: finalists measured on the unseen questions, timed, compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from rag_opt.analysis import history, paired
from rag_opt.analysis.findings import Findings, Loss
from rag_opt.analysis.interchange import FOLDER, SCORES, write_scores, write_trec
from rag_opt.config.compose import quote_overrides
from rag_opt.config.experiments import build_experiment, collapse_best, format_replay_command
from rag_opt.config.overrides import format_overrides
from rag_opt.config.trust import to_plain
from rag_opt.console.screens import report_line
from rag_opt.console.secrets import hide_secrets
from rag_opt.evaluation.latency import NARROW
from rag_opt.metrics.catalogue import SPREAD
from rag_opt.storages.attributes import get_attributes, get_study_attributes
from rag_opt.storages.databases import redact_url
from rag_opt.storages.snapshot import StudySnapshot, Trials
from rag_opt.study import terminator
from rag_opt.study.ablation import measure_ablations
from rag_opt.study.finalists import confirm_finalists, format_configurations, get_trial_name, get_trial_overrides
from rag_opt.study.judges import tell_judges
from rag_opt.study.power import format_sharper_metric
from rag_opt.study.spending import propose_budget

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Confirmation
    from rag_opt.cache.store import Store
    from rag_opt.config.trial import TrialConfig
    from rag_opt.records.documents import Dataset
    from rag_opt.records.scores import Evaluation, Latency
    from rag_opt.study.plan import Plan

TIMED, WORST = 3, 10
"""Of a Pareto front so many are timed; of questions that got worse so many are shown."""

NEEDED, PLACES = ("hydra.searchpath", "trusted_modules"), ("studies_dir", "store.path")
"""What is no part of a configuration and needed to build it: where its files lie and whom they may name; its store."""

SHOWN = 5
"""Documents of a ranking that are shown."""


def build_findings(plan: Plan, study: optuna.Study) -> Findings:
    """The findings of a study; finalists are measured and timed here."""
    # One moment for everything below: what other processes tell meanwhile would make the report contradict itself.
    now = StudySnapshot(study)
    # Before the finalists are confirmed: that opens the reserve and forgets that a budget has ended the search.
    budget = propose_budget(plan, now)
    found, evaluations, judged = confirm_finalists(plan, study, now)
    _write_finalists(plan, now, evaluations)
    front = history.find_front(now)
    recommended, selected = _choose_trials(found, front)
    given = format_overrides(plan.baseline) if recommended is None else get_trial_overrides(now, recommended)
    config = plan.dev.compose_overrides(given)
    pair = _find_pair(now, selected, evaluations)
    compared = [judged[number] for number in pair]
    # Before the ablations, whose stages are no finalists'; these before what was paid and stored is told.
    notes = (*_collect_notes(plan, study, now), *tell_judges(plan, found, judged))
    ablations = measure_ablations(plan, now, selected, evaluations)
    return Findings(
        name=plan.settings.name,
        url=redact_url(plan.storage_url),
        signs=plan.objective.signs,
        cost=plan.objective.cost.name,
        trials=len(now.get_trials()),
        unfinished=now.unfinished,
        best=front[0].values[0] if front else None,
        documents=len(plan.dataset.documents),
        dev=plan.dev.questions.count,
        test=plan.test.questions.count,
        confirmation=found[0] if found else None,
        others=found[1:],
        latencies=_measure_latencies(plan, now, selected),
        stages=_measure_stages(plan, now, pair),
        looks=max(1, len(get_study_attributes(study).looks)),
        losses=_find_losses(plan, compared),
        commands=_build_commands(plan, config if front else None, bool(terminator.format_stop_reason(now)), budget),
        store=_format_hits(plan.resources.store),
        reason=_find_reason(now.get_trials()),
        mermaid=plan.dev.make_pipeline(config).to_mermaid(),
        config=config.parameters,
        experiment=build_experiment(config.words),
        fingerprints=plan.fingerprints,
        space=OmegaConf.to_yaml(plan.config.search_space),
        differences=_compute_differences(plan, compared),
        paid=_get_spending(plan),
        forecast=get_study_attributes(study).forecast,
        noise=_compute_noise(plan, compared),
        notes=notes,
        means={str(number): _select_finite(each.means) for number, each in judged.items()},
        ablations=ablations,
    )


def _find_pair(now: StudySnapshot, selected: int | None, evaluations: Mapping[int, Evaluation]) -> list[int]:
    """The trials that are compared on the unseen questions: the selected one and the baseline, if they were asked."""
    baseline = history.find_baseline(now)
    return [n for n in (selected, baseline.number if baseline else None) if n is not None and n in evaluations]


def _write_finalists(plan: Plan, now: Trials, evaluations: Mapping[int, Evaluation]) -> None:
    """The finalists' rankings as TREC runs, and their scores, under their names."""
    named = {get_trial_name(now, number): evaluation for number, evaluation in evaluations.items()}
    write_trec(plan.settings.folder / FOLDER, plan.test.questions.dataset.qrels, named)
    write_scores(plan.settings.folder / SCORES, named)


def _collect_notes(plan: Plan, study: optuna.Study, now: StudySnapshot) -> tuple[str, ...]:
    """What the finalists' stages have said, a metric that needs fewer questions, what more trials may gain."""
    sharper = format_sharper_metric(plan, plan.get_files(study), now)
    return tuple(filter(None, (*plan.resources.notices.kept, sharper, _format_prospect(plan, study, now))))


def _format_prospect(plan: Plan, study: optuna.Study, now: Trials) -> str:
    """What more trials may gain; "" with several objectives, and where the search has said it itself."""
    if len(now.directions) > 1 or terminator.format_stop_reason(study):
        return ""
    target, count = plan.objective.names[0], len(now.get_trials(deepcopy=False))
    found = terminator.estimate_gain(study, now, target, plan.settings, count, plan.dev.questions.groups)
    rule = plan.settings.stopping
    return terminator.format_prospect(found) if rule is None else terminator.format_prospect(found, rule.share)


def _choose_trials(found: Sequence[Confirmation], front: Sequence[FrozenTrial]) -> tuple[int | None, int | None]:
    """The trial that is recommended, and the selected one, of which difference, time and losses are told."""
    if not found:
        best = front[0].number if front else None
        return best, best
    return found[0].recommended, found[0].selected_arm.trial


def _format_hits(store: Store) -> str:
    hits, misses = sum(store.hits.values()), sum(store.misses.values())
    return f"{hits:,} of {hits + misses:,} stage results came from the store"


def _measure_stages(plan: Plan, study: Trials, numbers: Sequence[int]) -> dict[str, dict[str, float]]:
    """Seconds by part, by the name of each of these trials."""
    return {
        get_trial_name(study, number): plan.test.measure_stages(_compose_config(plan, study, number))
        # The selected one may be the baseline itself.
        for number in dict.fromkeys(numbers)
    }


def _compose_config(plan: Plan, study: Trials, number: int) -> TrialConfig:
    return plan.test.compose_overrides(get_trial_overrides(study, number))


def _select_finite(means: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in means.items() if math.isfinite(value)}


def _find_reason(trials: Sequence[FrozenTrial]) -> str:
    """Why the first trial failed that failed by itself; "" where none did."""
    noted = map(get_attributes, trials)
    return next((each.reason for each in noted if each.reason is not None and not each.interrupted), "")


def _measure_latencies(plan: Plan, study: Trials, selected: int | None) -> dict[str, Latency]:
    """By name (trial N, baseline) what a question costs; a pipeline that pays for questions is not timed."""
    baseline = history.find_baseline(study)
    numbers = [
        *([] if selected is None else [selected]),
        *(trial.number for trial in history.find_front(study)[:TIMED]),
    ]
    found = {}
    wanted = list(dict.fromkeys([*numbers, *([baseline.number] if baseline else [])]))
    report_line(f"timing {format_configurations(len(wanted))}, one question at a time, then drawing the report …")
    for number in wanted:
        name = get_trial_name(study, number)
        try:
            latency = plan.test.measure_latency(_compose_config(plan, study, number), NARROW)
        except Exception as error:
            # The study's result stands, whatever a component does with a single question.
            report_line(f"{name} could not be timed: {type(error).__name__}: {error}"[:300])
            continue
        if latency is not None:
            found[name] = latency
    return found


def _compute_differences(plan: Plan, pair: Sequence[Evaluation]) -> tuple[float, ...]:
    """The selected one's scores less the baseline's, a question each."""
    target = plan.objective.names[0]
    if len(pair) < 2:
        return ()
    return tuple(paired.compute_differences(pair[0].per_query[target], pair[1].per_query[target]).tolist())


def _get_spending(plan: Plan) -> dict[str, float]:
    """What calls to models this study was charged for; {} where it made none."""
    if not plan.resources.llm.asked:
        return {}
    spent = plan.resources.llm.spent
    return {"calls": spent.calls, "tokens": spent.tokens, "usd": spent.usd}


def _compute_noise(plan: Plan, pair: Sequence[Evaluation]) -> dict[str, float]:
    """How far the judge's repeated grades of an answer lie apart, and what that adds to the difference's variance.

    A grade is the mean of its repeats, so its own variance is theirs by their number; the intervals, made of these
    grades, hold it already.
    """
    target = plan.objective.names[0]
    name = f"{target}{SPREAD}"
    if len(pair) < 2 or any(name not in each.per_query for each in pair):
        return {}
    variances = [each.per_query[name] ** 2 for each in pair]
    apart = pair[0].per_query[target] - pair[1].per_query[target]
    known = ~np.isnan(apart) & ~np.isnan(variances[0]) & ~np.isnan(variances[1])
    if known.sum() < 2:
        return {}
    # The judge's errors on the two answers count as independent, so their variances add up in the difference.
    own = float(np.mean((variances[0] + variances[1])[known])) / int(to_plain(plan.config.judge.repeats))
    spread = math.sqrt(float(np.mean(np.concatenate([each[known] for each in variances]))))
    whole = float(np.var(apart[known], ddof=1))
    return {"spread": spread, "share": min(1.0, own / whole) if whole else 0.0}


def _find_losses(plan: Plan, pair: Sequence[Evaluation]) -> tuple[Loss, ...]:
    """The questions that the first evaluation answers worst compared with the second."""
    if len(pair) < 2:
        return ()
    target = plan.objective.names[0]
    ours, theirs = pair[0].per_query[target], pair[1].per_query[target]
    ahead = plan.objective.signs[target] * (ours - theirs)
    # Unmeasured questions are nan: argsort puts them last, and no nan is below 0.
    worst = [row for row in np.argsort(ahead, kind="stable").tolist() if ahead[row] < 0][:WORST]
    return tuple(_build_loss(plan, row, pair, float(ours[row]), float(theirs[row])) for row in worst)


def _build_loss(plan: Plan, row: int, pair: Sequence[Evaluation], ours: float, theirs: float) -> Loss:
    query = plan.test.questions.queries.items[row]
    grades = plan.test.questions.dataset.qrels.get(query.id, {})
    relevant = [key for key, grade in grades.items() if grade > 0]
    lists = [_format_documents(plan.dataset, found.retrieved[row][:SHOWN], relevant) for found in pair]
    gold = (*(f"answer: {text}" for text in query.answers), *_format_documents(plan.dataset, relevant[:SHOWN], ()))
    return Loss(query.text, gold, lists[0], lists[1], ours, theirs)


def _format_documents(dataset: Dataset, ids: Sequence[str], relevant: Sequence[str]) -> tuple[str, ...]:
    """Documents by id and their beginning, files by their names alone, the relevant ones marked."""
    wanted = set(ids)
    texts = {d.id: " ".join((d.title or d.text).split())[:90] for d in dataset.documents if d.id in wanted}
    told = {key: f"{key}: {texts[key]}" if texts.get(key) else key for key in ids}
    return tuple(f"{'✓ ' if key in relevant else ''}{told[key]}" for key in ids)


def format_own_overrides(plan: Plan, *without: str) -> list[str]:
    """The words of the study's own command line less these keys, for people: a password in them is hidden."""
    return [hide_secrets(word) for word in collapse_best(plan.dev.base) if word.partition("=")[0] not in without]


def _select_overrides(plan: Plan, *keys: str) -> list[str]:
    """Of the study's own command line the words that set these keys."""
    return [word for word in format_own_overrides(plan) if word.partition("=")[0] in keys]


def _build_commands(
    plan: Plan, config: TrialConfig | None, settled: bool, budget: Mapping[str, float]
) -> dict[str, str]:
    node, settings = to_plain(plan.config.tracking), plan.settings
    early = ("stopping", "stopping.after", "stopping.share") if settled else ()
    longer = format_own_overrides(plan, "n_trials", *early, *budget)
    commands = {}
    if config is not None:
        commands["replay"] = format_replay_command(config.words)
        place = settings.folder.as_posix()
        asked = quote_overrides([f"best={place}", *_select_overrides(plan, *NEEDED, *PLACES)])
        commands["ask"] = f"python -m rag_opt.ask {asked} question='…'"
        commands["promote"] = f"python -m rag_opt.promote {quote_overrides([place])}"
        commands["export"] = f"python -m rag_opt.export {quote_overrides([place, *_select_overrides(plan, *NEEDED)])}"
    if "/" in settings.name:
        # A study of a multirun goes on by itself under its whole name.
        longer = [*(word for word in longer if not word.startswith("name=")), f"name='{settings.name}'"]
    # One that ended early has trials left, and would end at once again.
    total = settings.n_trials if settled or budget else 2 * settings.n_trials
    longer += [f"n_trials={total}", *(["stopping=none"] if settled else [])]
    longer += [f"{key}={limit:.10g}" for key, limit in budget.items()]
    commands["continue"] = f"python -m rag_opt.study {quote_overrides(longer)}"
    commands["report"] = f"python -m rag_opt.report {quote_overrides([settings.folder.as_posix()])}"
    commands["dashboard"] = f"python -m rag_opt.dashboard {quote_overrides([settings.folder.as_posix()])}"
    if node["enabled"]:
        commands["mlflow"] = f"mlflow ui --backend-store-uri {quote_overrides([str(node['uri'])])}"
    # Once more as a whole: the replayed words and MLflow's address have not been through `format_own_overrides`.
    return {name: hide_secrets(command) for name, command in commands.items()}
