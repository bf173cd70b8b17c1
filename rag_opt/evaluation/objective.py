"""What a study optimises, what it must keep to, and what else it measures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from rag_opt.config.trust import to_plain
from rag_opt.errors import ConfigError, MetricError
from rag_opt.evaluation.coverage import UncoveredError
from rag_opt.evaluation.judging import build_judges, parse_judge_settings
from rag_opt.metrics.aspects import FIELDS
from rag_opt.metrics.catalogue import (
    HANDED,
    JUDGE,
    LATENCY,
    MAXIMIZE,
    MINIMIZE,
    RANKS,
    Metric,
    explain_unmet,
    get_metric,
)
from rag_opt.metrics.custom import build_judge_metric, build_own_metric
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.records.documents import Dataset
    from rag_opt.records.scores import Evaluation

CONSTRAINT = re.compile(r"\s*(\S+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*([A-Za-z]*)\s*")
EXAMPLES = {"metrics": "[nDCG@10]", "report": "[F1, tokens]", "constraints": "['tokens <= 2000']"}
UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "tokens": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
"""Metrics are in seconds and bytes; a constraint may use other units."""


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric's mean: `sign` is 1 for at most, -1 for at least."""

    metric: str
    sign: float
    bound: float
    text: str

    def compute_violation(self, means: Mapping[str, float]) -> float:
        """How far the mean is beyond the bound, at most 0 where it is kept; inf where it could not be measured."""
        # Optuna takes a constraint that is not set for one that is kept.
        value = means.get(self.metric, math.nan)
        return math.inf if math.isnan(value) else self.sign * (value - self.bound)


@dataclass(frozen=True)
class Objective:
    """What is optimised (with a direction each), what else is measured, what must hold, and what counts as cost.

    `coverage` is the share of the measurable questions that must be measured, or the trial fails.
    """

    targets: tuple[Metric, ...]
    directions: tuple[str, ...]
    reported: tuple[Metric, ...]
    constraints: tuple[Constraint, ...]
    cost: Metric
    coverage: float

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (*self.targets, *self.reported)

    @property
    def names(self) -> tuple[str, ...]:
        """The targets' names."""
        return tuple(target.name for target in self.targets)

    @property
    def signs(self) -> dict[str, float]:
        """By target 1 where more is better, -1 where less is."""
        pairs = zip(self.names, self.directions, strict=True)
        return {name: 1.0 if direction == MAXIMIZE else -1.0 for name, direction in pairs}

    def get_values(self, found: Evaluation) -> list[float]:
        """The targets' means; raises UncoveredError where one speaks for too few questions, ValueError for inf."""
        # Coverage first: where calls to a model failed, that is the reason, and nan only what comes of it.
        for name in (*self.names, *(constraint.metric for constraint in self.constraints)):
            if found.coverage[name] < self.coverage:
                raise UncoveredError(
                    f"{name} could be measured for {found.coverage[name]:.0%} of its questions, evaluation.coverage "
                    f"asks for {self.coverage:.0%}"
                )
        for name in self.names:
            # Optuna would let inf be the best value of a study.
            if not math.isfinite(found.means[name]):
                raise ValueError(
                    f"{name} is {found.means[name]}: it could not be measured for any question, or is infinite"
                )
        return [float(found.means[name]) for name in self.names]

    @property
    def handed(self) -> str | None:
        """The first target on what is handed on; None where it does not measure a ranking."""
        return get_handed_name(self.targets[0])

    @property
    def deciding(self) -> tuple[Metric, ...]:
        """The targets, and what is constrained."""
        # What is only reported decides neither what is worth searching nor whether trials are timed.
        bound = {constraint.metric for constraint in self.constraints}
        return tuple(each for each in self.metrics if each in self.targets or each.name in bound)

    @property
    def times(self) -> bool:
        """Whether each trial's pipeline is timed apart, one question at a time, since latency decides."""
        return LATENCY in {*(each.name for each in self.deciding), self.cost.name}

    @property
    def fingerprint(self) -> str:
        # What few studies have is added only where it is there, so that the others keep the key they always had.
        whole = ["objective", self.names, self.directions]
        versions = {m.name: m.version for m in self.metrics if m.version}
        held = [(c.metric, c.sign, c.bound) for c in self.constraints]
        return compute_key(*whole, *([versions] if versions else []), *([held] if held else []))


def get_handed_name(target: Metric) -> str | None:
    """The name of a ranking's measure on what is handed on; None for any other metric."""
    return f"{HANDED}{target.name}" if target.reads == RANKS else None


def build_objective(config: DictConfig) -> Objective:
    """The objective of a configuration; raises MetricError or ConfigError when it names nothing that exists."""
    names, extra = _read_names(config, "metrics"), _read_names(config, "report")
    if not names:
        raise ConfigError("objective.metrics is empty: name at least one, such as objective.metrics=[nDCG@10]")
    own = _build_own_metrics(config)
    constraints = tuple(_parse_constraint(text) for text in _read_names(config, "constraints"))
    cost = to_plain(config.confirmation.cost)
    wanted = dict.fromkeys([*names, *extra, *own, *(constraint.metric for constraint in constraints), str(cost)])
    known = own | _build_judge_metrics(config, wanted)
    # A judge's noise comes with its repeats, without being named.
    found = {name: known.get(name) or get_metric(name) for name in {**wanted, **known}}
    if (handed := get_handed_name(found[names[0]])) is not None:
        # It decides among the tied ones.
        found.setdefault(handed, get_metric(handed))
    if found[cost].direction != MINIMIZE:
        raise ConfigError(f"confirmation.cost={cost}: a metric of which less is better is expected, such as tokens")
    targets = tuple(found[name] for name in names)
    share = to_plain(config.evaluation.coverage)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError(f"evaluation.coverage={share}: a share from 0 to 1 is expected")
    reported = tuple(each for name, each in found.items() if name not in names)
    return Objective(targets, _parse_directions(config, targets), reported, constraints, found[cost], float(share))


def _parse_directions(config: DictConfig, targets: tuple[Metric, ...]) -> tuple[str, ...]:
    given = to_plain(config.objective.directions)
    directions = [target.direction for target in targets] if given is None else given
    if not isinstance(directions, list) or len(directions) != len(targets):
        raise ConfigError(
            f"objective.directions={given}: one for each of {[t.name for t in targets]} is needed, or null"
        )
    for direction in directions:
        if direction not in (MAXIMIZE, MINIMIZE):
            raise ConfigError(f"objective.directions: '{direction}' is neither {MAXIMIZE} nor {MINIMIZE}")
    return tuple(directions)


def _build_own_metrics(config: DictConfig) -> dict[str, Metric]:
    given = to_plain(config.objective.get("own")) or {}
    if not isinstance(given, dict):
        raise ConfigError(f"objective.own={given}: metrics by their names are expected")
    trusted, prices = to_plain(config.trusted_modules), to_plain(config.price)
    return {str(name): build_own_metric(str(name), node, trusted, prices) for name, node in given.items()}


def _build_judge_metrics(config: DictConfig, names: Iterable[str]) -> dict[str, Metric]:
    """The judges' metrics among these names, with their noise where it is measured."""
    aspects = [name.removeprefix(JUDGE) for name in names if name.startswith(JUDGE)]
    # An unknown aspect is left to get_metric, which names the nearest.
    known = [aspect for aspect in aspects if aspect in FIELDS]
    if not known:
        return {}
    repeats = parse_judge_settings(config).repeats
    judges = build_judges(config, known, repeats)
    found = [build_judge_metric(aspect, judges) for aspect in known]
    found += [build_judge_metric(aspect, judges, spread=True) for aspect in known if repeats > 1]
    return {each.name: each for each in found}


def _parse_constraint(text: str) -> Constraint:
    found = CONSTRAINT.fullmatch(text)
    try:
        if found is None or found[4] not in UNITS:
            raise ValueError  # noqa: TRY301 (both ways to be wrong get the same message)
        bound = float(found[3]) * UNITS[found[4]]
    except ValueError as error:
        raise ConfigError(
            f"objective.constraints: '{text}' is not <metric> <= <number> or >=, with a unit of "
            f"{', '.join(filter(None, UNITS))} or none, such as 'latency_p95 <= 50 ms'"
        ) from error
    return Constraint(found[1], 1.0 if found[2] == "<=" else -1.0, bound, text)


def _read_names(config: DictConfig, key: str) -> list[str]:
    given = to_plain(config.objective.get(key)) or []
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"objective.{key}={given}: a list is expected, such as {EXAMPLES[key]}")
    if len(set(given)) < len(given):
        raise ConfigError(f"objective.{key}={given}: one is named twice")
    return given


def select_measurable(objective: Objective, dataset: Dataset, has_generator: bool) -> tuple[Metric, ...]:
    """The targets, and the reported metrics that this dataset and pipeline can feed.

    Raises MetricError when a target or a constraint can't be measured.
    """
    needed = {constraint.metric for constraint in objective.constraints} | {*objective.names, objective.cost.name}
    kept = []
    for each in objective.metrics:
        reason: Any = explain_unmet(each, dataset, has_generator)
        if reason and each.name in needed:
            raise MetricError(f"objective: {reason}")
        kept += [] if reason else [each]
    return tuple(kept)
