"""A changed configuration, or changed documents, against what a study recorded, by the study's own questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis import paired
from rag_opt.analysis.confirmation import BASELINE
from rag_opt.analysis.interchange import SCORES, read_scores
from rag_opt.errors import StudyError
from rag_opt.evaluation.coverage import check_served
from rag_opt.metrics.catalogue import ALL

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.evaluation.objective import Objective
    from rag_opt.records.documents import Scores
    from rag_opt.records.scores import Evaluation

PASSED, WORSE, UNDECIDED = 0, 1, 2
"""Exit statuses: not worse by more than the margin; worse, shown; neither could be shown."""

SHOWN = 5


@dataclass(frozen=True)
class Comparison:
    """A metric of each question as recorded and as it is now, greater is better in `differences`.

    `low` and `high` are the mean difference's 95 % interval; `margin` is how much worse would do.
    """

    metric: str
    questions: tuple[str, ...]
    recorded: tuple[float, ...]
    changed: tuple[float, ...]
    sign: float
    margin: float
    low: float
    high: float

    @property
    def differences(self) -> Scores:
        found: Scores = self.sign * (np.array(self.changed) - np.array(self.recorded))
        return found

    @property
    def mean(self) -> float:
        return float(self.differences.mean())

    @property
    def status(self) -> int:
        """0 where it is not worse by more than the margin, 1 where it is worse, 2 where neither is shown."""
        if self.low >= -self.margin:
            return PASSED
        return WORSE if self.high < 0 else UNDECIDED

    @property
    def needed(self) -> int | None:
        """About so many questions would decide; None where no number would."""
        spread = float(self.differences.std(ddof=1)) if len(self.questions) > 1 else math.nan
        # How far the mean is from what would decide: the margin, or none at all.
        gap = self.margin + self.mean if self.mean > -self.margin else self.mean
        return paired.estimate_count(gap, spread) if spread > 0 else None

    @property
    def losses(self) -> list[tuple[str, float, float]]:
        """(question, recorded, changed) of those that are answered worse, the worst first."""
        rows = zip(self.questions, self.recorded, self.changed, self.differences, strict=True)
        return [row[:3] for row in sorted((row for row in rows if row[3] < 0), key=lambda row: row[3])]


def read_recorded(folder: Path, findings: Findings) -> dict[str, float]:
    """The first objective's value of each question that confirms, as the study recorded it of its recommendation.

    Raises StudyError where it recommends nothing or has left no scores.
    """
    confirmation, metric = findings.confirmation, findings.targets[0]
    if confirmation is None:
        raise StudyError(f"{folder}: it has confirmed nothing, so there is nothing to compare with")
    arm = confirmation.recommended_arm
    name = BASELINE if arm.role == BASELINE else f"trial {arm.trial}"
    try:
        return read_scores(folder / SCORES, name, metric)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{folder}: what it measured question by question can't be read ({type(error).__name__}: {error}); "
            "run the study's command again"
        ) from error


def needs_answers(objective: Objective) -> bool:
    """Whether the first objective, or what has to be measured beside it, depends on more than what is retrieved.

    Raises StudyError where the first objective is one figure for all questions, such as a latency.
    """
    first = objective.targets[0]
    if first.single:
        raise StudyError(f"{first.name} is one figure for all questions, and the gate compares question by question")
    return first.reads == ALL or any(each.needs in ("answers", "generator") for each in objective.deciding)


def check_measured(objective: Objective, evaluation: Evaluation) -> None:
    """Raise StudyError where too few questions were measured to compare: calls may have failed for the others."""
    try:
        check_served(evaluation, objective.coverage)
        objective.get_values(evaluation)
    except ValueError as error:
        raise StudyError(f"what is measured now can't be compared: {error}") from error


def compare(
    recorded: Mapping[str, float], evaluation: Evaluation, metric: str, sign: float, margin: float
) -> Comparison:
    """What was recorded beside what was measured now, for the questions of both; raises StudyError without any."""
    now = dict(zip(evaluation.query_ids, evaluation.per_query[metric].tolist(), strict=True))
    # nan: it could not be measured, which makes it no worse.
    both = [name for name in recorded if name in now and not math.isnan(now[name])]
    if not both:
        raise StudyError("none of the questions that the study recorded was measured; is it the same data set?")
    differences = sign * np.array([now[name] - recorded[name] for name in both])
    # A fixed seed, so that CI gives the same scores the same verdict.
    low, high = paired.bootstrap_interval(differences, seed=0)
    # Of a single question there is no interval (nan), though one that has not changed is no worse.
    if not np.any(differences):
        low = high = 0.0
    values = tuple(recorded[name] for name in both), tuple(now[name] for name in both)
    return Comparison(metric, tuple(both), *values, sign, margin, low, high)


def format_summary(found: Comparison, texts: Mapping[str, str], changes: Sequence[str]) -> Iterator[str]:
    """The lines of a Markdown summary, for a pull request."""
    verdict = {
        PASSED: f"**passed**: not worse by more than {found.margin:g}",
        WORSE: "**worse**: beyond what chance explains",
        UNDECIDED: f"**undecided**: these questions can't tell whether it is worse by more than {found.margin:g}",
    }[found.status]
    yield f"### rag_opt: {verdict}"
    yield ""
    if changes:
        yield f"Changed: {', '.join(f'`{word}`' for word in changes)}"
        yield ""
    yield f"| {found.metric} | recorded | now | difference | 95 % interval | questions |"
    yield "| --- | --- | --- | --- | --- | --- |"
    recorded, changed = np.mean(found.recorded), np.mean(found.changed)
    interval = f"[{found.low:+.4f}, {found.high:+.4f}]"
    yield f"| mean | {recorded:.4f} | {changed:.4f} | {found.mean:+.4f} | {interval} | {len(found.questions)} |"
    if found.status == UNDECIDED and found.needed:
        yield ""
        yield f"About {found.needed:,} questions like these would decide."
    if found.losses:
        yield ""
        yield f"| answered worse ({len(found.losses)}) | recorded | now |"
        yield "| --- | --- | --- |"
        for name, was, value in found.losses[:SHOWN]:
            # A line break or a bar of a question would break the table.
            text = " ".join(texts.get(name, name).split()).replace("|", "\\|")[:120]
            yield f"| {text} | {was:.3f} | {value:.3f} |"
