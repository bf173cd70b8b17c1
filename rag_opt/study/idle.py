"""Parameters of a space on which nothing depends that is optimised or constrained: they are not searched.

What a parameter changes is seen in the configuration (which components, which of their parameters), what a metric
depends on in the pipeline: a ranking's measure on all that leads to the ranking, but not on how much is handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution

from rag_opt.config.overrides import format_overrides
from rag_opt.config.search_space import Assignment, Parameter, SearchSpace, Value
from rag_opt.config.stages import STAGES
from rag_opt.config.sweep_grammar import order_parameters
from rag_opt.config.trial import TrialConfig, compose_trial
from rag_opt.console.screens import report_line
from rag_opt.errors import SearchSpaceError
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.evaluation.wiring import get_outputs
from rag_opt.metrics.catalogue import ALL, HANDED, RANKS, Metric

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources

RERANKER = "reranker"
"""The group whose choice decides whether a ranking depends on how much is handed on to it."""

Place = tuple[str, str | None]
"""A component and one of its parameters; None: the component itself."""


def drop_idle_parameters(
    space: SearchSpace, config: TrialConfig, resources: Resources, metrics: Sequence[Metric], standing: Assignment
) -> tuple[SearchSpace, tuple[str, ...]]:
    """The space less what can't move any of these metrics, and the names of that, which are said.

    What moves them only behind some rerankers exists only there. `standing` are the configuration's own values. Raises
    SearchSpaceError when nothing is left.
    """
    # Such a metric may depend on any stage (tokens, seconds, answers), so nothing is idle.
    if any(metric.reads == ALL for metric in metrics):
        return space, ()
    look = Look(space, config, resources, {metric.reads for metric in metrics})
    found = {parameter.name: look.find_conditions(parameter) for parameter in space.parameters}
    idle = tuple(name for name, bound in found.items() if bound is None)
    measured = ", ".join(metric.name for metric in metrics)
    if len(idle) == len(found):
        raise SearchSpaceError(f"search_space: there is nothing to search: {_format_idle(idle, measured)}")
    if idle:
        report_line(f"not searched: {_format_idle(idle, measured)}")
    kept = space.fix_parameters(idle, {name: standing.get(name) for name in idle}).parameters
    limited = [_add_conditions(parameter, found[parameter.name], space) for parameter in kept]
    for parameter, before in zip(limited, kept, strict=True):
        if parameter.when != before.when:
            behind = " or ".join(map(str, parameter.when[RERANKER]))
            report_line(
                f"{parameter.name} is searched with {RERANKER}={behind} alone: otherwise {measured} can't depend on it"
            )
    # The new conditions make the reranker a parent, and parents have to be drawn before their children.
    return SearchSpace(tuple(order_parameters(limited))), idle


def _format_idle(idle: Sequence[str], measured: str) -> str:
    them = "it" if len(idle) == 1 else "them"
    answers = ", F1" if any(name.partition(".")[0] == "generator" for name in idle) else ""
    return (
        f"{', '.join(idle)}, since {measured} can't depend on {them}; to search {them} add a metric of what is handed "
        f"on to objective.metrics or objective.constraints, such as {HANDED}nDCG@10, tokens{answers}"
    )


def _add_conditions(
    parameter: Parameter, bound: Mapping[str, tuple[Value, ...]] | None, space: SearchSpace
) -> Parameter:
    """The parameter with these conditions more, unless the parents would depend on it."""
    if not bound or parameter.name in space.get_ancestors(RERANKER):
        return parameter
    return replace(parameter, when={**parameter.when, **bound})


def can_change(reads: str, pipeline: RagPipeline, place: Place) -> bool:
    """Whether what a metric reads (RANKS, READS, ALL) can change with this component's parameter in this pipeline."""
    name, changed = place
    # Several of a library's components may work as one.
    part = next((each for each in pipeline.parts if name in (each.name, *getattr(each.component, "members", ()))), None)
    if part is None or reads == ALL:
        return part is not None
    name = part.name
    ranking = [each.name for each in pipeline.parts if "ranking" in get_outputs(each.component)]
    if reads != RANKS:
        # Without a stage that makes a context the last ranking is what is handed on.
        return name in pipeline.get_upstream([pipeline.results.get("context", ranking[-1])])
    if changed in getattr(part.component, "handing", ()):
        # What it hands on is put in order anew by what takes it.
        return any(name in pipeline.get_upstream([other]) for other in ranking if other != name)
    return name in pipeline.get_upstream(ranking)


@dataclass(frozen=True)
class Look:
    """A space, and what the metrics of its study read."""

    space: SearchSpace
    base: TrialConfig
    resources: Resources
    reads: set[str]

    def find_conditions(self, parameter: Parameter) -> Mapping[str, tuple[Value, ...]] | None:
        """Under which rerankers the parameter moves anything: {} under all, None under none."""
        # A single value shows no difference, which does not make the parameter idle.
        if len(self.space.get_corner_values(parameter)) < 2:
            return {}
        reranker = next((each for each in self.space.parameters if each.name == RERANKER), None)
        if reranker is None or reranker is parameter or not isinstance(reranker.distribution, CategoricalDistribution):
            return {} if self._has_effect(parameter, {}) else None
        values = reranker.distribution.choices
        moved = tuple(value for value in values if self._has_effect(parameter, {RERANKER: value}))
        if not moved:
            return {} if self._has_effect(parameter, {}) else None
        # Where the space has no reranker to choose, there is the one that stands in the configuration.
        always = bool(reranker.when) and self.base.stages[RERANKER].choice in moved
        return {} if always or len(moved) == len(values) else {RERANKER: moved}

    def _has_effect(self, parameter: Parameter, given: Assignment) -> bool:
        """Whether anything that is read can change with the parameter where the space has what is given."""
        return any(self._has_effect_in(parameter, known) for known in self._iterate_contexts(parameter, given))

    def _iterate_contexts(self, parameter: Parameter, given: Assignment) -> Iterator[dict[str, Value]]:
        """What is given, then with each choice of each other stage, and with each end of what limits the parameter."""
        yield dict(given)
        for other in self.space.parameters:
            if other is not parameter and other.name not in given and other.name in (*STAGES, parameter.below):
                for value in self.space.get_corner_values(other):
                    yield {**given, other.name: value}

    def _has_effect_in(self, parameter: Parameter, known: Assignment) -> bool:
        showing = (
            self.space.find_assignment({**known, parameter.name: value})
            for value in self.space.get_corner_values(parameter)
        )
        # One after the other, since most parameters show with their second value that they matter.
        configs = (
            compose_trial([*self.base.words, *format_overrides(values)]) for values in showing if values is not None
        )
        first = next(configs, None)
        return first is not None and any(self._can_differ(first, other) for other in configs)

    def _can_differ(self, one: TrialConfig, other: TrialConfig) -> bool:
        places = set(find_differences(one, other))
        pipelines = [build_pipeline(each, self.resources) for each in (one, other)] if places else []
        # In either pipeline: what differs may be a component that only one of them has.
        return any(can_change(reads, each, place) for each in pipelines for place in places for reads in self.reads)


def find_differences(one: TrialConfig, other: TrialConfig) -> Iterator[Place]:
    """The components' parameters in which two configurations differ."""
    for stage in one.stages:
        mine, others = one.stages[stage].components, other.stages[stage].components
        for name in _merge_keys(mine, others):
            if name not in mine or name not in others:
                yield name, None
                continue
            for key in _merge_keys(mine[name], others[name]):
                # KeyError stands for a parameter that is not there, which is another thing than one that is null.
                if mine[name].get(key, KeyError) != others[name].get(key, KeyError):
                    yield name, key


def _merge_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    return dict.fromkeys([*one, *other])
