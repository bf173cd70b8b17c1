"""A language model's grades of a sample of a served model's answers, on their traces: paid once, within a budget."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import AssessmentSource, AssessmentSourceType

from rag_opt.errors import ConfigError, format_hint
from rag_opt.evaluation.accounts import open_account
from rag_opt.evaluation.evaluator import build_resources
from rag_opt.evaluation.judging import build_judges, measure_judge, parse_judge_settings
from rag_opt.judge.check import explain_constant
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.metrics.aspects import FIELDS, Shown
from rag_opt.metrics.catalogue import JUDGE
from rag_opt.production.registry import explain_failures
from rag_opt.production.traces import VERSION, find_traces, get_question

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from mlflow.entities.model_registry import ModelVersion
    from omegaconf import DictConfig

    from rag_opt.evaluation.accounts import Account
    from rag_opt.evaluation.judging import JudgeSettings
    from rag_opt.llm.replies import Expenses
    from rag_opt.production.registry import Registry

ASPECTS = tuple(aspect for aspect, fields in FIELDS.items() if "reference" not in fields)
"""What can be graded without a reference."""

BATCH = 10
"""Verdicts that are asked for before what they say is kept on the traces."""


@dataclass(frozen=True)
class Judged:
    """How many traces were graded by aspect, what was paid, and why it ended before the sample did ("": it did not)."""

    counts: Mapping[str, int]
    paid: Expenses
    ended: str = ""


def judge_sample(
    registry: Registry, found: ModelVersion, config: DictConfig, aspects: Sequence[str], count: int, since: float
) -> Judged:
    """Grade a random sample of a version's answers since then, `count` of each aspect beside those that have a grade.

    Grades stand on the traces as MLflow's feedback, 1 to 5, named such as judge.faithfulness. Raises ConfigError for a
    judge that grades all labelled answers alike, or agrees with them less than `judge.floor` says, unless `judge.trust`
    is set.
    """
    for aspect in aspects:
        if aspect not in ASPECTS:
            raise ConfigError(f"--aspect {aspect}: there is no such judge; {format_hint(aspect, ASPECTS)}")
    settings, judges = parse_judge_settings(config), build_judges(config, aspects, repeats=1)
    price = judges.chat.compute_usd(judges.model, 1, 1)
    account = open_account(config, build_resources(config), f"watched {found.name}", judges.model, price)
    counts = dict.fromkeys(aspects, 0)
    try:
        for aspect in aspects:
            if settings.check:
                _check_judge(config, aspect, account, settings)
            grader = judges.use_resources(account.resources)
            for batch in _iterate_batches(_choose(registry, found, aspect, count, since)):
                grades = grader.grade_aspect(aspect, [shown for _, shown in batch]).grades
                told = [(trace, float(grade)) for (trace, _), grade in zip(batch, grades, strict=True)]
                counts[aspect] += _write(registry, f"{JUDGE}{aspect}", judges.model, told)
    except BudgetSpentError as error:
        return Judged(counts, account.paid, str(error))
    return Judged(counts, account.paid)


def _check_judge(config: DictConfig, aspect: str, account: Account, settings: JudgeSettings) -> None:
    found, floor = measure_judge(config, aspect, account.resources, settings.check, 1), settings.floor
    if found.is_constant:
        raise ConfigError(f"judge.model={found.model}: {explain_constant(found)}; choose another judge.model")
    # Put so that a kappa of nan is refused as well.
    if not (settings.trust or found.kappa >= floor):
        raise ConfigError(
            f"judge.{aspect}: {found.model} agrees with labelled answers by a weighted kappa of {found.kappa:.2f}, "
            f"below judge.floor={floor:g}: its grades would say little; choose another judge.model, or judge.trust=true"
        )


def _choose(registry: Registry, found: ModelVersion, aspect: str, count: int, since: float) -> list[tuple[str, Shown]]:
    """(trace, what the judge is shown) of a sample: the same ones first, whenever it is drawn."""
    label = f"models:/{found.name}/{found.version}"
    wanted = f"tags.`{VERSION}` = '{label}' and timestamp_ms >= {int(since * 1000)}"
    rows = []
    for trace in find_traces(registry, found.name, wanted):
        shown = _read_shown(trace)
        graded = any(each.name == f"{JUDGE}{aspect}" for each in trace.info.assessments)
        if not graded and shown is not None and (shown.answer is not None or "answer" not in FIELDS[aspect]):
            rows.append((trace.info.trace_id, shown))
    return sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())[:count]


def _read_shown(trace: Trace) -> Shown | None:
    """What a trace asked, said and read; None of one that failed, or read nothing."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    sources = next((span.outputs for span in trace.data.spans if span.span_type == "RETRIEVER"), None) or []
    if root is None or str(trace.info.state) == "ERROR" or not sources:
        return None
    answer = str((root.outputs or {}).get("answer", ""))
    return Shown(get_question(trace), (), answer or None, [str(each["page_content"]) for each in sources])


def _iterate_batches(rows: Sequence[tuple[str, Shown]]) -> Iterator[Sequence[tuple[str, Shown]]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _write(registry: Registry, name: str, model: str, told: Sequence[tuple[str, float]]) -> int:
    source = AssessmentSource(source_type=AssessmentSourceType.LLM_JUDGE, source_id=model)
    kept = [(trace, grade) for trace, grade in told if not math.isnan(grade)]
    with registry.use(), explain_failures(registry.uri, name):
        for trace, grade in kept:
            mlflow.log_feedback(trace_id=trace, name=name, value=grade, source=source)
    return len(kept)
