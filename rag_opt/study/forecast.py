"""What a study will cost, before it does: configurations of its space rehearsed on a few questions, no model called.

Everything but the calls to models really happens, so their number and what they are told are known; a request that the
store has a reply for, or that an earlier configuration has made, is not paid again. What a model reads and writes is
estimated by words, until the first paid calls of a stage say more.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.study import StudyDirection
from rich.table import Table
from rich.text import Text

from rag_opt.analysis import history
from rag_opt.config.overrides import format_overrides
from rag_opt.config.trust import to_plain
from rag_opt.console.progress import format_duration, report_line, track
from rag_opt.errors import ConfigError
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.judging import find_aspects, measure_judge, parse_judge_settings
from rag_opt.judge.check import STAGE
from rag_opt.llm.client import Rehearsal
from rag_opt.llm.replies import Expenses
from rag_opt.metrics.catalogue import Metric
from rag_opt.records.documents import Queries
from rag_opt.storages.snapshot import FINISHED, count_finished
from rag_opt.study.sampling import build_sampler
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.evaluation.evaluator import Evaluator
    from rag_opt.study.plan import Plan

CONFIGURATIONS = 40
QUESTIONS = 5
"""How many of each are rehearsed at most."""

FEW = 0.1
"""The share of a study's calls that a forecast may expect to be paid though the store has all of them."""

PATIENCE = 60.0
"""Seconds after which no other configuration is rehearsed."""


@dataclass(frozen=True)
class Stage:
    """What one stage is expected to ask for: all calls, and of these what has to be paid."""

    calls: float
    paid: Expenses


@dataclass(frozen=True)
class Forecast:
    """What so many trials and the confirmation are expected to cost, nothing pruned; seconds nan where not known."""

    trials: int
    configurations: int
    stages: Mapping[str, Stage]
    kept: bool = False
    """Whether the store has any of the replies."""

    @property
    def asks(self) -> bool:
        """Whether services will be asked for more than the few replies that are expected beside those kept."""
        return not self.kept or self.paid.calls > FEW * self.calls

    @property
    def calls(self) -> float:
        """All calls to models that are expected, those that the store answers included."""
        return sum(stage.calls for stage in self.stages.values())

    @property
    def paid(self) -> Expenses:
        """What has to be paid in all; nan where it is not known of a stage."""
        columns = [vars(stage.paid) for stage in self.stages.values()]
        return Expenses(**{name: sum(column[name] for column in columns) for name in vars(Expenses())})

    def format_line(self) -> str:
        """The forecast in one line."""
        if not self.stages:
            return f"forecast: {self.trials} trials and their confirmation, no call to a model, nothing to pay"
        paid = self.paid
        return (
            f"forecast: {self.trials} trials and their confirmation: {format_count(self.calls)} calls to models, "
            f"{format_count(paid.calls)} of them paid: {format_count(paid.tokens)} tokens, {format_usd(paid.usd)}, "
            f"time of calls {format_call_time(paid.seconds)} (nothing pruned); the whole time is told after the "
            "baseline"
        )

    def format_lines(self, tokens: float | None, usd: float | None) -> list[str]:
        """The forecast, and how far a budget reaches where it does not cover it."""
        paid = self.paid
        pairs = (("tokens", tokens, paid.tokens), ("usd", usd, paid.usd))
        short = [
            f"budget.{name}={limit:,.10g} covers about {limit / needed:.0%} of that; the search will stop early"
            for name, limit, needed in pairs
            if limit is not None and needed > limit
        ]
        return [self.format_line(), *short]

    def build_table(self) -> Table:
        """The forecast by stage."""
        table = Table(title=self.format_line(), title_justify="left")
        table.add_column("stage")
        for name in ("calls", "paid calls", "tokens", "money", "time"):
            table.add_column(name, justify="right")
        for name, stage in self.stages.items():
            paid = stage.paid
            cells = (
                format_count(stage.calls),
                format_count(paid.calls),
                format_count(paid.tokens),
                format_usd(paid.usd),
                format_call_time(paid.seconds),
            )
            table.add_row(Text(name), *cells)
        return table


def format_count(count: float) -> str:
    """A count to three digits."""
    return f"{float(f'{count:.3g}'):,.0f}"


def format_usd(usd: float) -> str:
    """Dollars; without a price it says so."""
    return "no price known" if math.isnan(usd) else f"${usd:,.4g}"


def format_call_time(seconds: float) -> str:
    """The time that calls take; unknown before the first ones."""
    return "unknown yet" if math.isnan(seconds) else f"about {format_duration(seconds)}"


def compute_forecast(plan: Plan, study: optuna.Study | None = None) -> Forecast:
    """What the study will cost, or what is left of it.

    Of its trials so far counts which share of their calls had to be paid for: a stage that is asked about what others
    have said can repeat itself more than a rehearsal shows. Raises ConfigError where a budget in dollars is set and a
    model has no price.
    """
    done = count_finished(study) if study is not None else 0
    seen = history.compute_paid_share(study) if study is not None else {}
    left = max(0, plan.settings.n_trials - done)
    if not _select_paying(plan.dev) and not plan.asks_models:
        return Forecast(left, 0, {})
    configurations = list(_sample_configurations(plan, study, done, min(left, CONFIGURATIONS)))
    searched = _rehearse(plan, plan.dev, configurations)
    # The best, the baseline, and of the tied ones about half are as many as there may be. Where all questions are
    # searched, their replies are those of the search.
    finalists = [] if plan.settings.crossfits else configurations[: 2 + plan.settings.ties // 2]
    confirming = _rehearse(plan, plan.test, finalists) if finalists else []
    stages: dict[str, Stage] = {}
    for found, trials, evaluator in ((searched, left, plan.dev), (confirming, len(finalists), plan.test)):
        for name in found[-1].calls if found else ():
            more = _extrapolate_stage(plan, name, found, trials, evaluator.questions.count)
            stages[name] = _add_stages(stages.get(name), _cap_paid_share(more, seen.get(name, 1.0)))
    stages |= _forecast_checks(plan)
    kept = any(found[-1].kept for found in (searched, confirming) if found)
    whole = Forecast(left, len(configurations), stages, kept)
    if math.isnan(whole.paid.usd) and plan.settings.budget_usd is not None:
        raise ConfigError(
            "budget.usd is set, but a model that would be asked has no price: add it to a file in conf/price, or set "
            "budget.tokens"
        )
    return whole


def _sample_configurations(plan: Plan, study: optuna.Study | None, done: int, count: int) -> Iterator[Sequence[str]]:
    """The words of the next configurations, as the sampler draws them knowing the trials so far and no new result."""
    environment.silence_optuna()
    # On a copy: in the study itself each draw would leave a trial that is RUNNING and is never measured.
    copy = optuna.create_study(directions=[StudyDirection[each.upper()] for each in plan.objective.directions])
    copy.add_trials(history.get_measured(study, *FINISHED) if study is not None else [])
    for place in range(done, done + count):
        copy.sampler = build_sampler(plan.config, place)
        # The seeds come first in the study as well, so their calls have to be in the forecast.
        if place < len(plan.seeds):
            copy.enqueue_trial(plan.space.to_trial_params(plan.seeds[place]))
        yield format_overrides(plan.space.suggest(copy.ask()))


def _select_paying(evaluator: Evaluator) -> tuple[Metric, ...]:
    """The metrics that may call models: judges, and those of other libraries, which count in place of calling."""
    return tuple(metric for metric in evaluator.metrics if metric.pays)


def _rehearse(plan: Plan, evaluator: Evaluator, configurations: Sequence[Sequence[str]]) -> list[Rehearsal]:
    """What has been asked for after each configuration, all before it included, on a few questions."""
    questions, (rehearsal, resources) = _sample_questions(evaluator.questions, plan.settings.seed), _start(evaluator)
    few = replace(evaluator, questions=questions, metrics=_select_paying(evaluator), resources=resources, times=False)
    start = time.monotonic()
    snapshots: list[Rehearsal] = []
    with track("forecast: configurations rehearsed", len(configurations)) as advance:
        for given in configurations:
            if snapshots and time.monotonic() - start > PATIENCE:
                break
            advance(1)
            try:
                few.measure_config(few.compose_overrides(given))
            except Exception as error:
                # Whatever a component may raise: its trial will fail, and the study goes on.
                report_line(f"forecast: {' '.join(given)} can't be rehearsed: {type(error).__name__}: {error}"[:300])
                continue
            snapshots.append(rehearsal.copy())
    return snapshots


def _start(evaluator: Evaluator) -> tuple[Rehearsal, Resources]:
    """A rehearsal that has counted nothing yet, and the resources to rehearse with."""
    llm = evaluator.resources.llm
    rehearsal = Rehearsal({stage: (ratio, written) for stage, (ratio, written, _) in llm.replies.get_means().items()})
    return rehearsal, replace(evaluator.resources, llm=replace(llm, rehearsal=rehearsal))


def _forecast_checks(plan: Plan) -> dict[str, Stage]:
    """What measuring the judges on labelled answers before trial 0 asks for."""
    count = parse_judge_settings(plan.config).check if plan.settings.preflight else 0
    rehearsal, resources = _start(plan.dev)
    for aspect in find_aspects(metric.name for metric in plan.dev.metrics) if count else ():
        measure_judge(plan.config, aspect, resources, count)
    rows = list(rehearsal.new[STAGE].values())
    if not rehearsal.calls[STAGE]:
        return {}
    took = plan.resources.llm.replies.get_means().get(STAGE, (0.0, 0.0, math.nan))[2]
    seconds = len(rows) * took / _get_concurrency(plan) if rows else 0.0
    paid = Expenses(len(rows), sum(row[0] + row[1] for row in rows), sum(row[2] for row in rows), seconds)
    return {STAGE: Stage(rehearsal.calls[STAGE], paid)}


def _sample_questions(questions: Questions, seed: int) -> Questions:
    """A few of the questions, drawn at random, in one batch."""
    items = list(questions.queries.items)
    chosen = random.Random(seed).sample(items, min(QUESTIONS, len(items)))
    return Questions(
        questions.dataset,
        questions.documents,
        Queries.from_items(tuple(chosen)),
        (np.arange(len(chosen), dtype=np.int32),),
    )


def _extrapolate_stage(plan: Plan, stage: str, found: Sequence[Rehearsal], trials: int, questions: int) -> Stage:
    """What a stage asks for in so many trials with so many questions.

    Later configurations repeat more and more requests of earlier ones; how new ones become rarer is read off the
    rehearsal's second half and carried on as a power law (Heaps').
    """
    count, asked = len(found), min(QUESTIONS, questions)
    half = max(1, count // 2)
    last = found[-1].new.get(stage, {})
    new, before = len(last), len(found[half - 1].new.get(stage, {}))
    # With one configuration, or nothing new in the first half, no exponent is known: growth counts as linear.
    power = math.log(new / before) / math.log(count / half) if before and count > half else 1.0
    growth = (trials / count) ** min(1.0, max(0.0, power)) if trials > count else trials / count
    scale = growth * questions / asked
    rows = list(last.values())
    tokens, usd = sum(row[0] + row[1] for row in rows), sum(row[2] for row in rows)
    took = plan.resources.llm.replies.get_means().get(stage, (0.0, 0.0, math.nan))[2]
    paid = Expenses(
        scale * new, scale * tokens, scale * usd, scale * new * took / _get_concurrency(plan) if new else 0.0
    )
    return Stage(found[-1].calls[stage] * trials / count * questions / asked, paid)


def _cap_paid_share(stage: Stage, share: float) -> Stage:
    """The stage with no greater share of its calls paid for."""
    ratio = min(1.0, share * stage.calls / stage.paid.calls) if stage.paid.calls else 1.0
    return Stage(stage.calls, Expenses(*(ratio * value for value in vars(stage.paid).values())))


def _get_concurrency(plan: Plan) -> int:
    """How many calls are under way at the same time."""
    return int(to_plain(plan.config.llm).get("at_once", 1))


def _add_stages(one: Stage | None, other: Stage) -> Stage:
    if one is None:
        return other
    columns = {name: getattr(one.paid, name) + getattr(other.paid, name) for name in vars(Expenses())}
    return Stage(one.calls + other.calls, Expenses(**columns))
