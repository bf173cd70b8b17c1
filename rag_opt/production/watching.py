"""What a served model does, by its traces: how much, how fast, at what cost, and whether that has changed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.errors import ModelError
from rag_opt.production.bundle import Bundle, Reference
from rag_opt.production.drift import EITHER, LOW, Drift, apply_usual_rule, bet
from rag_opt.production.registry import Registry
from rag_opt.production.traces import VERSION, find_traces
from rag_opt.text.tokenization import split_words

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from mlflow.entities.model_registry import ModelVersion

DAY = 86_400.0
ALPHA = 0.05
"""How probable a false alarm may be, over all looks and all streams together."""

PERCENTILES = (50, 95, 99)
GRADED = 0.75
"""The part of the error rate that is kept for grades: they are few, and a small fall of theirs matters."""

FOUND, ANSWERED = "found something", "answered"


@dataclass(frozen=True)
class Observation:
    """What one trace tells: when, a question's words, the first hit's score (nan: none), hits, seconds by part and all.

    `usd` is nan where a price is not known; `grades` are people's and judges' by name, a thumb 0 or 1.
    """

    at: float
    words: int
    score: float
    hits: int
    seconds: Mapping[str, float]
    total: float
    tokens: int
    usd: float
    failed: bool
    grades: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Values that are watched: how many, their mean and the reference's, and what betting on a change has won.

    `usual` is after how many values the usual rule (the last 10 below 0.9 of the 40 before) would have fired, -1 for
    never. `quality`: a fall is the model's doing, which an earlier version may mend; what people ask is not.
    """

    name: str
    count: int
    mean: float
    expected: float
    drift: Drift
    usual: int
    quality: bool = True

    @property
    def is_grade(self) -> bool:
        """Whether somebody has given these values: people their thumbs, a judge its grades."""
        return self.quality and self.name not in (FOUND, ANSWERED)


@dataclass(frozen=True)
class Watch:
    """A model's version by what it was asked: numbers, streams, and whether an alarm is due."""

    model: str
    observations: tuple[Observation, ...]
    streams: tuple[Stream, ...]
    alpha: float

    @property
    def alarms(self) -> list[Stream]:
        """The streams that have changed: each may spend its part of the error rate."""
        return find_alarms(self.streams, self.alpha)

    def get_percentiles(self, part: str = "") -> tuple[float, ...]:
        """The 50th, 95th and 99th percentile of the seconds of a part ("": of the whole); nan without any."""
        rows = [each.seconds.get(part, math.nan) if part else each.total for each in self.observations]
        kept = [value for value in rows if not math.isnan(value)]
        return tuple(np.percentile(kept, PERCENTILES).tolist()) if kept else (math.nan,) * len(PERCENTILES)

    @property
    def parts(self) -> list[str]:
        """The parts of the pipeline, in the order in which they work."""
        return list(dict.fromkeys(part for each in self.observations for part in each.seconds))


def find_alarms(streams: Sequence[Stream], alpha: float) -> list[Stream]:
    """Those that have changed, by an error rate for all of them together."""
    limits = list_limits(streams, alpha)
    return [stream for stream, limit in zip(streams, limits, strict=True) if stream.drift.reached >= limit]


def list_limits(streams: Sequence[Stream], alpha: float) -> list[float]:
    """By stream what betting on a change must have won for an alarm: their error rates add up to alpha."""
    count = sum(stream.is_grade for stream in streams)
    # Where there are grades alone, or none, these have all of it.
    graded = GRADED if 0 < count < len(streams) else float(count > 0)
    # Bonferroni within each kind; by chance a bet reaches 1 / alpha with a probability of at most alpha (Ville 1939).
    return [
        count / (graded * alpha) if stream.is_grade else (len(streams) - count) / ((1 - graded) * alpha)
        for stream in streams
    ]


def watch_model(registry: Registry, found: ModelVersion, days: float, alpha: float = ALPHA) -> Watch:
    """What a registered version was asked in the last days; raises ModelError where nothing was."""
    label = f"models:/{found.name}/{found.version}"
    reference = Bundle.read(registry.fetch(found)).reference
    rows = read_observations(registry, found.name, label, time.time() - days * DAY)
    if not rows:
        raise ModelError(
            f"{label}: no trace of this version in the last {days:g} days; python -m rag_opt.serve {label} leaves them "
            "(--traces)"
        )
    return Watch(label, tuple(rows), tuple(build_streams(rows, reference)), alpha)


def read_observations(registry: Registry, model: str, label: str, since: float) -> list[Observation]:
    """What the traces of a version tell that began since then, the oldest first; [] without any."""
    wanted = f"tags.`{VERSION}` = '{label}' and timestamp_ms >= {int(since * 1000)}"
    rows = (read_observation(trace) for trace in find_traces(registry, model, wanted))
    return sorted((row for row in rows if row is not None), key=lambda row: row.at)


def read_observation(trace: Trace) -> Observation | None:
    """What a trace tells; None for one that was not written to its end."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    if root is None or not isinstance(root.inputs, Mapping):
        return None
    sources = next((span.outputs for span in trace.data.spans if span.span_type == "RETRIEVER"), None) or []
    told = {key: root.get_attribute(f"rag_opt.{key}") for key in ("usd", "total", "seconds")}
    usage = json.loads(trace.info.trace_metadata.get("mlflow.trace.tokenUsage", "{}"))
    return Observation(
        at=trace.info.request_time / 1000,
        words=len(split_words(str(root.inputs.get("question", "")))),
        score=float(sources[0]["metadata"]["score"]) if sources else math.nan,
        hits=len(sources),
        seconds=dict(told["seconds"] or {}),
        total=float(told["total"] or math.nan),
        tokens=int(usage.get("total_tokens", 0)),
        usd=math.nan if told["usd"] is None else float(told["usd"]),
        failed=str(trace.info.state) == "ERROR" or trace.info.tags.get("rag_opt.error", "") != "",
        grades=_read_grades(trace.info.assessments),
    )


def build_streams(rows: Sequence[Observation], reference: Reference) -> list[Stream]:
    """What is watched: scores and lengths of questions against the bundle's, the rest against what came before."""
    answered = [row for row in rows if not row.failed]
    expected = [score for score in reference.scores if not math.isnan(score)]
    streams = [
        replace(_build_stream("first hit's score", expected, [row.score for row in answered], EITHER), quality=False),
        replace(
            _build_stream("words of a question", reference.words, [float(row.words) for row in rows], EITHER),
            quality=False,
        ),
    ]
    found = [float(count > 0) for count in reference.hits]
    return [*streams, *_build_quality(rows, lambda name: found if name == FOUND else [])]


def compare_streams(rows: Sequence[Observation], others: Sequence[Observation]) -> list[Stream]:
    """What is watched of a version beside another one at the same time: its quality, against that of the other."""
    return _build_quality(rows, lambda name: _get_values(others, name))


def _build_quality(rows: Sequence[Observation], get_reference: Callable[[str], Sequence[float]]) -> list[Stream]:
    names = dict.fromkeys([FOUND, ANSWERED, *(name for row in rows for name in row.grades)])
    return [_build_stream(name, get_reference(name), _get_values(rows, name), LOW) for name in names]


def _get_values(rows: Sequence[Observation], name: str) -> list[float]:
    """A value an observation; nan where it has none."""
    if name == ANSWERED:
        return [float(not row.failed) for row in rows]
    if name == FOUND:
        # A failure counts once, among what was answered.
        return [math.nan if row.failed else float(row.hits > 0) for row in rows]
    return [row.grades.get(name, math.nan) for row in rows]


def _build_stream(name: str, reference: Iterable[float], values: Sequence[float], bets: Sequence[float]) -> Stream:
    known, kept = list(reference), [value for value in values if not math.isnan(value)]
    mean = float(np.mean(kept)) if kept else math.nan
    expected = float(np.mean(known)) if known else math.nan
    return Stream(name, len(kept), mean, expected, bet(known, kept, bets), apply_usual_rule(kept))


def _read_grades(assessments: Iterable[Any]) -> dict[str, float]:
    """People's and judges' grades by name, the last of each; what is no number and neither yes nor no is left out."""
    found = {}
    for each in assessments:
        value = getattr(each.feedback, "value", None) if getattr(each, "feedback", None) else None
        if isinstance(value, bool | int | float):
            found[str(each.name)] = float(value)
        elif isinstance(value, str) and value.lower() in ("yes", "no"):
            found[str(each.name)] = float(value.lower() == "yes")
    return found
