"""What comes before the first trial: models loaded, services asked, and what all of it will cost."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_opt.cache.store import Store
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
from rag_opt.storages.snapshot import count_finished
from rag_opt.study import preflight
from rag_opt.study.forecast import extrapolate_study
from rag_opt.study.pilot import ask_first
from rag_opt.study.rehearsal import rehearse_study

if TYPE_CHECKING:
    import optuna

    from rag_opt.console.progress import Screen
    from rag_opt.llm.replies import Expenses
    from rag_opt.study.forecast import Forecast
    from rag_opt.study.plan import Plan


def prepare_trials(plan: Plan, study: optuna.Study, screen: Screen, *, shared: bool) -> None:
    """Say what the rest will cost; raises ComponentError for what is named and can't be used."""
    settings, spent = plan.settings, plan.resources.llm.spent
    # Who only has workers measure needs no model in memory.
    resources = replace(plan.resources, store=Store(plan.resources.store.root)) if shared else plan.resources
    if settings.preflight:
        preflight.check_components(plan, resources, services=False)
    rehearsed = rehearse_study(plan, study)
    told = extrapolate_study(plan, rehearsed, study)
    _report_forecast(plan, told, screen)
    if settings.preflight:
        # After the forecast is told: from here on calls are paid for.
        preflight.check_services(plan, resources, asks=told.asks)
    now = time.time()
    if told.asks and (pilot := ask_first(plan, resources, rehearsed, told.stages)).calls:
        told = extrapolate_study(plan, rehearsed, study, pilot)
        screen.report_line(f"{pilot.calls} calls are paid for now; what they read, wrote and took makes that:")
        _report_forecast(plan, told, screen)
    _record_forecast(plan, study, told, spent, now)


def _report_forecast(plan: Plan, told: Forecast, screen: Screen) -> None:
    for line in told.format_lines(plan.settings.budget_tokens, plan.settings.budget_usd):
        screen.report_line(line)


def _record_forecast(plan: Plan, study: optuna.Study, told: Forecast, spent: Expenses, now: float) -> None:
    """Note what all of the study is expected to cost, once for a number of trials.

    `spent` was before the forecast, `now` is when the first of its calls was made.
    """
    noted, trials = get_study_attributes(study).forecast, plan.settings.n_trials
    if not told.stages or noted.get("trials") == trials:
        return
    paid = told.paid
    cost = {"calls": spent.calls + paid.calls, "tokens": spent.tokens + paid.tokens}
    # Of what is resumed only the rest's time is known, and none where no call came through.
    timed = {} if count_finished(study) or math.isnan(told.seconds) else {"seconds": told.seconds}
    StudyAttributes.forecast.save(study, {"trials": trials, "at": now, **cost, **timed})
