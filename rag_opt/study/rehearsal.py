"""Configurations of a study's space rehearsed on a few questions: everything happens but the calls to models.

So how many calls there are and what they are told is known before any is made; what models write is not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.study import StudyDirection

from rag_opt.analysis import history
from rag_opt.config.overrides import format_overrides
from rag_opt.console.progress import track
from rag_opt.console.screens import report_line
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.judging import find_aspects, measure_judge, parse_judge_settings
from rag_opt.llm.client import Rehearsal
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

PATIENCE = 60.0
"""Seconds after which no other configuration is rehearsed."""


@dataclass(frozen=True)
class Snapshot:
    """A configuration rehearsed: its overrides, what was asked for so far, those before it included, and its seconds.

    `asking` is what its questions took without any call, `indexing` what came before them; what the store has is no
    part of either.
    """

    words: Sequence[str]
    counted: Rehearsal
    asking: float
    indexing: float


@dataclass(frozen=True)
class Rehearsed:
    """What is left of a study, rehearsed: its trials, its finalists on the questions that confirm, its judges' checks.

    `trials` and `finalists` are how many there will be; as many snapshots, or fewer.
    """

    trials: int
    finalists: int = 0
    searched: Sequence[Snapshot] = ()
    confirming: Sequence[Snapshot] = ()
    checks: Rehearsal | None = None

    @property
    def kept(self) -> bool:
        """Whether the store has any of the replies."""
        return any(found[-1].counted.kept for found in (self.searched, self.confirming) if found)

    def find_first(self, stage: str) -> Sequence[str] | None:
        """The overrides of the first configuration in which a stage asks for what has to be paid; None without one."""
        return next((each.words for each in self.searched if each.counted.new.get(stage)), None)


def rehearse_study(plan: Plan, study: optuna.Study | None = None) -> Rehearsed:
    """What is left of a study, or all of it, rehearsed; nothing is where it asks no model."""
    left = max(0, plan.settings.n_trials - (count_finished(study) if study is not None else 0))
    if not select_paying(plan.dev) and not plan.asks_models:
        return Rehearsed(left)
    configurations = list(_sample_configurations(plan, study, min(left, CONFIGURATIONS)))
    # The best, the baseline, and of the tied ones about half are as many as there may be. Where all questions are
    # searched, their replies are those of the search.
    finalists = [] if plan.settings.crossfits else configurations[: 2 + plan.settings.ties // 2]
    searched = _rehearse(plan, plan.dev, configurations)
    confirming = _rehearse(plan, plan.test, finalists) if finalists else []
    return Rehearsed(left, len(finalists), searched, confirming, _rehearse_checks(plan))


def select_paying(evaluator: Evaluator) -> tuple[Metric, ...]:
    """The metrics that may call models: judges, and those of other libraries, which count in place of calling."""
    return tuple(metric for metric in evaluator.metrics if metric.pays)


def sample_questions(questions: Questions, count: int, seed: int) -> Questions:
    """So many of the questions, drawn at random, in one batch."""
    items = list(questions.queries.items)
    return take_questions(questions, random.Random(seed).sample(range(len(items)), min(count, len(items))))


def take_questions(questions: Questions, rows: Sequence[int]) -> Questions:
    """These of the questions, in one batch."""
    chosen = tuple(questions.queries.items[row] for row in rows)
    one = (np.arange(len(chosen), dtype=np.int32),)
    return Questions(questions.dataset, questions.documents, Queries.from_items(chosen), one)


def _sample_configurations(plan: Plan, study: optuna.Study | None, count: int) -> Iterator[Sequence[str]]:
    """The words of the next configurations, as the sampler draws them knowing the trials so far and no new result."""
    environment.silence_optuna()
    done = count_finished(study) if study is not None else 0
    # On a copy: in the study itself each draw would leave a trial that is RUNNING and is never measured.
    copy = optuna.create_study(directions=[StudyDirection[each.upper()] for each in plan.objective.directions])
    copy.add_trials(history.get_measured(study, *FINISHED) if study is not None else [])
    # Seeded by place, as the scheduler does it, so these are draws that the study itself may make.
    for place in range(done, done + count):
        copy.sampler = build_sampler(plan.config, place)
        # The seeds come first in the study as well, so their calls have to be in the forecast.
        if place < len(plan.seeds):
            copy.enqueue_trial(plan.space.to_trial_params(plan.seeds[place]))
        # Left RUNNING in the copy, so that the sampler looks elsewhere with the next draw.
        yield format_overrides(plan.space.suggest(copy.ask()))


def _rehearse(plan: Plan, evaluator: Evaluator, configurations: Sequence[Sequence[str]]) -> list[Snapshot]:
    """What has been asked for after each configuration, all before it included, on a few questions."""
    questions = sample_questions(evaluator.questions, QUESTIONS, plan.settings.seed)
    counted, resources = count_calls(evaluator.resources)
    # Not timed apart: a rehearsal that times would ask each question again.
    few = replace(evaluator, questions=questions, metrics=select_paying(evaluator), resources=resources, times=False)
    start = time.monotonic()
    snapshots: list[Snapshot] = []
    with track("forecast: configurations rehearsed", len(configurations)) as advance:
        for given in configurations:
            # One at least, however slow: without any there is nothing to extrapolate.
            if snapshots and time.monotonic() - start > PATIENCE:
                break
            advance(1)
            begun = time.monotonic()
            try:
                found = few.measure_config(few.compose_overrides(given))
            except Exception as error:
                # Whatever a component may raise: its trial will fail, and the study goes on.
                report_line(f"forecast: {' '.join(given)} can't be rehearsed: {type(error).__name__}: {error}"[:300])
                continue
            asking = found.seconds["evaluation"]
            # A copy, since the next configurations are counted in the same record.
            snapshots.append(Snapshot(given, counted.copy(), asking, time.monotonic() - begun - asking))
    return snapshots


def _rehearse_checks(plan: Plan) -> Rehearsal:
    """What measuring the judges on labelled answers before trial 0 asks for."""
    count = parse_judge_settings(plan.config).check if plan.settings.preflight else 0
    counted, resources = count_calls(plan.dev.resources)
    for aspect in find_aspects(metric.name for metric in plan.dev.metrics) if count else ():
        measure_judge(plan.config, aspect, resources, count)
    return counted


def count_calls(resources: Resources) -> tuple[Rehearsal, Resources]:
    """A rehearsal that has counted nothing yet, and the resources to rehearse with."""
    counted = Rehearsal()
    return counted, replace(resources, llm=replace(resources.llm, rehearsal=counted))
