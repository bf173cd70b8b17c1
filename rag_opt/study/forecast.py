"""What a study will cost, before it does: its rehearsal carried on to all of its trials and questions.

A request that the store has a reply for, or that an earlier configuration has made, is not paid again. What a model
reads and writes is guessed by words until calls of its stage were paid, then it is what these read and wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import optuna
from rich.table import Table
from rich.text import Text

from rag_opt.analysis import history
from rag_opt.console.progress import format_duration
from rag_opt.errors import ConfigError
from rag_opt.judge.check import STAGE
from rag_opt.llm.client import Unpaid
from rag_opt.llm.replies import Expenses
from rag_opt.study.eta import REPORT
from rag_opt.study.rehearsal import QUESTIONS, Rehearsed, Snapshot, rehearse_study

if TYPE_CHECKING:
    from rag_opt.study.pilot import Pilot
    from rag_opt.study.plan import Plan

FEW = 0.1
"""The share of a study's calls that a forecast may expect to be paid though the store has all of them."""

TRIAL = 0.5
"""Seconds of a trial that are no question's: its configuration composed, its scores written and mirrored."""

Means = Mapping[str, tuple[float, float, float]]
"""By stage what calls have read for one token guessed, what they wrote, and their seconds."""


@dataclass(frozen=True)
class Stage:
    """What one stage is expected to ask for: all calls, and of these what has to be paid."""

    calls: float
    paid: Expenses

    def scale(self, by: float) -> Stage:
        """So many times as much."""
        return Stage(by * self.calls, Expenses(*(by * value for value in vars(self.paid).values())))


@dataclass(frozen=True)
class Forecast:
    """What so many trials and the confirmation are expected to cost, nothing pruned; seconds nan where not known."""

    trials: int
    configurations: int
    stages: Mapping[str, Stage]
    kept: bool = False
    """Whether the store has any of the replies."""
    work: float = math.nan
    """The seconds that are no call's."""

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

    @property
    def seconds(self) -> float:
        """How long all of it takes; nan where it is not known of a stage."""
        return self.work + self.paid.seconds

    def format_line(self) -> str:
        """The forecast in one line."""
        if not self.stages:
            return f"forecast: {self.trials} trials and their confirmation, no call to a model, nothing to pay"
        paid = self.paid
        return (
            f"forecast: {self.trials} trials and their confirmation: {format_count(self.calls)} calls to models, "
            f"{format_count(paid.calls)} of them paid: {format_count(paid.tokens)} tokens, {format_usd(paid.usd)}, "
            f"{self._format_time()}; nothing pruned"
        )

    def _format_time(self) -> str:
        if math.isnan(self.seconds):
            return "their time unknown and texts counted at their longest until the first are paid"
        return f"calls take about {format_duration(self.paid.seconds)}, all of it about {format_duration(self.seconds)}"

    def format_lines(self, tokens: float | None, usd: float | None) -> list[str]:
        """The forecast, and how far a budget reaches where it does not cover it."""
        paid = self.paid
        pairs = (("tokens", tokens, paid.tokens), ("usd", usd, paid.usd))
        # Without a price the dollars are nan, which exceeds no limit.
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
    """What the study will cost, or what is left of it; raises ConfigError as `extrapolate_study`."""
    return extrapolate_study(plan, rehearse_study(plan, study), study)


def extrapolate_study(
    plan: Plan, rehearsed: Rehearsed, study: optuna.Study | None = None, pilot: Pilot | None = None
) -> Forecast:
    """What all trials and the confirmation will cost, by what was rehearsed and by calls that were paid.

    Of its trials so far counts which share of their calls had to be paid for: a stage that is asked about what others
    have said can repeat itself more than a rehearsal shows. Raises ConfigError where a budget in dollars is set and a
    model has no price.
    """
    # None where no stage asks a model, so that nothing was rehearsed.
    if rehearsed.checks is None:
        return Forecast(rehearsed.trials, 0, {})
    seen = history.compute_paid_share(study) if study is not None else {}
    means = plan.resources.llm.replies.get_means()
    stages: dict[str, Stage] = {}
    parts = ((rehearsed.searched, rehearsed.trials, plan.dev), (rehearsed.confirming, rehearsed.finalists, plan.test))
    work = REPORT
    for found, trials, evaluator in parts:
        for name in found[-1].counted.calls if found else ():
            more = _extrapolate_stage(name, found, trials, evaluator.questions.count, means)
            more = _cap_paid_share(more, seen.get(name, 1.0)).scale(pilot.get_repeats(name) if pilot else 1.0)
            stages[name] = _add_stages(stages.get(name), more)
        work += _extrapolate_work(found, trials, evaluator.questions.count)
    if checked := rehearsed.checks.calls.get(STAGE):
        # Not scaled: judges are checked once, however many trials there are.
        rows = list(rehearsed.checks.new[STAGE].values())
        stages[STAGE] = Stage(checked, price_calls(STAGE, rows, 1.0, means))
    whole = Forecast(rehearsed.trials, len(rehearsed.searched), stages, rehearsed.kept, work)
    if math.isnan(whole.paid.usd) and plan.settings.budget_usd is not None:
        raise ConfigError(
            "budget.usd is set, but a model that would be asked has no price: add it to a file in conf/price, or set "
            "budget.tokens"
        )
    return whole


def _extrapolate_stage(stage: str, found: Sequence[Snapshot], trials: int, questions: int, means: Means) -> Stage:
    """What a stage asks for in so many trials with so many questions.

    Later configurations repeat more and more requests of earlier ones; how new ones become rarer is read off the
    rehearsal's second half and carried on as a power law (Heaps').
    """
    count, asked = len(found), min(QUESTIONS, questions)
    half = max(1, count // 2)
    last = found[-1].counted.new.get(stage, {})
    new, before = len(last), len(found[half - 1].counted.new.get(stage, {}))
    # With one configuration, or nothing new in the first half, no exponent is known: growth counts as linear.
    power = math.log(new / before) / math.log(count / half) if before and count > half else 1.0
    # Within 0 and 1: requests can't grow faster than trials, and few configurations give a noisy exponent.
    growth = (trials / count) ** min(1.0, max(0.0, power)) if trials > count else trials / count
    paid = price_calls(stage, list(last.values()), growth * questions / asked, means)
    return Stage(found[-1].counted.calls[stage] * trials / count * questions / asked, paid)


def price_calls(stage: str, rows: Sequence[Unpaid], scale: float, means: Means) -> Expenses:
    """What so many times these calls cost; seconds nan where no call of the stage was paid yet."""
    ratio, written, took = means.get(stage, (1.0, math.nan, math.nan))
    # The mean may be of calls that were allowed to write more than this one.
    tokens = [(ratio * row.reads, row.writes if math.isnan(written) else min(written, row.most)) for row in rows]
    usd = sum(row.price(*each) for row, each in zip(rows, tokens, strict=True))
    # 0, not nan: a stage that pays for nothing has no time that is unknown.
    seconds = scale * len(rows) * took if rows else 0.0
    return Expenses(scale * len(rows), scale * sum(map(sum, tokens)), scale * usd, seconds)


def _extrapolate_work(found: Sequence[Snapshot], trials: int, questions: int) -> float:
    """The seconds of so many trials that are no call's; those rehearsed have left their indexes in the store."""
    if not found:
        return 0.0
    asking = sum(each.asking for each in found) / len(found) * questions / min(QUESTIONS, questions)
    indexing = sum(each.indexing for each in found) / len(found)
    return trials * (TRIAL + asking) + max(0, trials - len(found)) * indexing


def _cap_paid_share(stage: Stage, share: float) -> Stage:
    """The stage with no greater share of its calls paid for."""
    ratio = min(1.0, share * stage.calls / stage.paid.calls) if stage.paid.calls else 1.0
    return replace(stage, paid=stage.scale(ratio).paid)


def _add_stages(one: Stage | None, other: Stage) -> Stage:
    if one is None:
        return other
    columns = {name: getattr(one.paid, name) + getattr(other.paid, name) for name in vars(Expenses())}
    return Stage(one.calls + other.calls, Expenses(**columns))
