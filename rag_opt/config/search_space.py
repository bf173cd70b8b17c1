"""The search space: parsed from Hydra's sweep grammar, checked once, then (trial) → overrides.

retriever: choice(bm25, dense, hybrid)        a group or a key → categorical
retriever.top_k: range(3, 21)                 whole numbers; the end is left out, as in Hydra and Python
retriever.hybrid_weight:
  values: interval(0.0, 1.0)                  real numbers; tag(log, interval(…)) on a logarithmic scale
  when: {retriever: hybrid}                   asked for only then; several parents and lists of values are allowed
splitter.overlap:
  values: range(0, 61, 20)
  below: splitter.chunk_size                  always less than this other parameter (or number)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.errors import SearchSpaceError
from rag_opt.records.keys import compute_key
from rag_opt.samplers.internals import contains

Value = bool | int | float | str | None
UP_TO = " up to "
"""Between a parameter's name and the upper end that `below` left it: "splitter.overlap up to 40"."""

Assignment = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """One key of the configuration and the values it may take, where it exists."""

    name: str
    distribution: BaseDistribution
    text: str
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    below: str | float | None = None

    @property
    def largest(self) -> Value:
        """The greatest number that the parameter can be; None where it has none."""
        if isinstance(self.distribution, CategoricalDistribution):
            numbers = [value for value in self.distribution.choices if isinstance(value, int | float)]
            return max(numbers, default=None)
        return getattr(self.distribution, "high", None)

    def is_active(self, chosen: Assignment) -> bool:
        """Whether the parameter exists, given the values chosen so far."""
        return all(name in chosen and _is_among(chosen[name], values) for name, values in self.when.items())

    def get_trial_name(self, limited: BaseDistribution) -> str:
        """The name under which a value of this (limited) distribution is asked for.

        A smaller range is a parameter of its own: samplers take a parameter's range for fixed and would never leave
        the smallest one that they saw.
        """
        if limited == self.distribution:
            return self.name
        assert isinstance(limited, IntDistribution | FloatDistribution)
        return f"{self.name}{UP_TO}{limited.high}"

    def get_distribution(self, chosen: Assignment) -> BaseDistribution:
        """The distribution with `below` applied; raises SearchSpaceError when nothing is left."""
        limit = chosen.get(self.below) if isinstance(self.below, str) else self.below
        if limit is None:
            return self.distribution
        whole = self.distribution
        assert isinstance(whole, IntDistribution | FloatDistribution)
        values = [value for value in _list_grid(whole) if value < float(str(limit))]
        if not values:
            raise SearchSpaceError(f"search_space: {self.name}: no value of {self.text} is below {self.below}={limit}")
        if len(values) == len(_list_grid(whole)):
            return whole
        # No scale to keep: `below` is refused where the scale is logarithmic (sweep_grammar).
        if isinstance(whole, IntDistribution):
            return IntDistribution(int(values[0]), int(values[-1]), step=whole.step)
        return FloatDistribution(values[0], values[-1], step=whole.step)


@dataclass(frozen=True)
class SearchSpace:
    """Parameters in an order in which every parent comes before its children."""

    parameters: tuple[Parameter, ...]

    @property
    def fingerprint(self) -> str:
        # Optuna refuses a changed list of choices in a study that is resumed, but takes a changed range in silence.
        rows = [(p.name, str(p.distribution), sorted(p.when.items()), p.below) for p in self.parameters]
        # By their text, since `below` is of several types that have no order; the file's own order is no matter.
        return compute_key("space", sorted(rows, key=str))

    def suggest(self, trial: Any) -> dict[str, Value]:
        """The values that this trial gives to the parameters that exist for it."""
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.is_active(chosen):
                limited = parameter.get_distribution(chosen)
                chosen[parameter.name] = suggest_value(trial, parameter.get_trial_name(limited), limited)
        return chosen

    def to_trial_params(self, values: Assignment) -> dict[str, Value]:
        """The values under the names that the study's storage knows them by: what can be enqueued."""
        named: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.name in values:
                named[parameter.get_trial_name(parameter.get_distribution(values))] = values[parameter.name]
        return named

    def fix_parameters(self, names: Sequence[str], fixed: Assignment) -> SearchSpace:
        """The space less these parameters, whose values are now fixed; children that can't exist go with them."""
        kept: list[Parameter] = []
        for parameter in self.parameters:
            when = {name: values for name, values in parameter.when.items() if name not in fixed}
            holds = all(_is_among(fixed[name], values) for name, values in parameter.when.items() if name in fixed)
            below = fixed.get(parameter.below, parameter.below) if isinstance(parameter.below, str) else parameter.below
            if parameter.name not in names and holds:
                limit = below if isinstance(below, str | int | float) else None
                kept.append(Parameter(parameter.name, parameter.distribution, parameter.text, when, limit))
        return SearchSpace(tuple(kept))

    def select_active(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those of the values whose parameter exists, given the others."""
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.name in values and parameter.is_active(chosen):
                chosen[parameter.name] = values[parameter.name]
        return chosen

    def find_invalid(self, values: Mapping[str, Value]) -> Parameter | None:
        """The first parameter that exists for these values and can't take its own; None when all can."""
        chosen = self.select_active(values)
        for parameter in self.parameters:
            if parameter.is_active(chosen) and not _is_allowed(parameter, chosen):
                return parameter
        return None

    def iterate_corners(self) -> Iterator[dict[str, Value]]:
        """Few assignments that together show every choice, every end of a range, and all pairs of these in one group.

        Pairs matter where a component compares its own parameters. Raises SearchSpaceError for a parameter that can
        never exist.
        """
        for parameter in self.parameters:
            if self._find_parents([parameter]) is None:
                conditions = ", ".join(f"{name}: {list(values)}" for name, values in parameter.when.items())
                raise SearchSpaceError(f"search_space: {parameter.name}: `when: {{{conditions}}}` can never hold")
        missing = self._build_targets()
        while missing:
            # Pairs first, which show single values as well; then by text: a set's order differs between processes.
            wanted = min(missing, key=lambda target: (-len(target), sorted(map(str, target))))
            missing.discard(wanted)
            chosen = self._find_corner(wanted, missing)
            if chosen is not None:
                missing -= {target for target in missing if target <= chosen.items()}
                yield chosen

    def find_assignment(self, wanted: Assignment) -> dict[str, Value] | None:
        """An assignment with these values; None where the space has none."""
        return self._find_corner(frozenset(wanted.items()), set())

    def get_corner_values(self, parameter: Parameter) -> list[Value]:
        """The parameter's choices or ends, and what conditions of others name of it."""
        return self._get_corner_values(parameter, parameter.get_distribution({}))

    def get_ancestors(self, name: str) -> set[str]:
        """The names of all parameters on which this one's existence depends; none for one that is not there."""
        return {each for p in self.parameters if p.name == name for each in self._find_ancestors(p)}

    def _build_targets(self) -> set[frozenset[tuple[str, Value]]]:
        items = [(p.name, value) for p in self.parameters for value in self._get_corner_values(p, p.distribution)]
        pairs = {
            frozenset((a, b)) for a, b in combinations(items, 2) if a[0] != b[0] and _get_group(a) == _get_group(b)
        }
        return pairs | {frozenset([item]) for item in items}

    def _get_corner_values(self, parameter: Parameter, distribution: BaseDistribution) -> list[Value]:
        """The distribution's choices or ends, and what conditions of other parameters name of it."""
        # A condition may name a number between the ends, at which another parameter exists.
        named = [value for other in self.parameters for value in other.when.get(parameter.name, ())]
        return list(
            dict.fromkeys([*list_corner_values(distribution), *(v for v in named if is_possible(distribution, v))])
        )

    def _find_corner(
        self, wanted: frozenset[tuple[str, Value]], missing: set[frozenset[tuple[str, Value]]]
    ) -> dict[str, Value] | None:
        """An assignment that shows what is wanted and much of what is missing; None when nothing can show it."""
        parents = self._find_parents([p for p in self.parameters if p.name in dict(wanted)])
        if parents is None:
            return None
        forced = parents | dict(wanted)
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.is_active(chosen):
                values = self._get_corner_values(parameter, parameter.get_distribution(chosen))
                if parameter.name in forced:
                    values = [value for value in values if value == forced[parameter.name]]
                if not values:
                    return None
                # Greedy: few assignments in little time, not the fewest.
                chosen[parameter.name] = max(values, key=partial(_count_shown, parameter.name, chosen, missing))
        return chosen if wanted <= chosen.items() else None

    def _find_parents(self, parameters: Sequence[Parameter]) -> dict[str, Value] | None:
        """Values of all ancestors under which these parameters exist together; None when there are none."""
        names = {name for parameter in parameters for name in self._find_ancestors(parameter)}
        ancestors = [p for p in self.parameters if p.name in names]
        for values in product(*(self._get_corner_values(p, p.distribution) for p in ancestors)):
            trial = self.select_active(dict(zip((p.name for p in ancestors), values, strict=True)))
            if all(parameter.is_active(trial) for parameter in parameters):
                return trial
        return None

    def _find_ancestors(self, parameter: Parameter) -> set[str]:
        by_name = {p.name: p for p in self.parameters}
        found: set[str] = set()
        waiting = list(parameter.when)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += by_name[name].when
        return found


def _get_group(item: tuple[str, Value]) -> str:
    return item[0].partition(".")[0]


def _count_shown(name: str, chosen: Assignment, missing: set[frozenset[tuple[str, Value]]], value: Value) -> int:
    """How much of what is missing this value would show, together with the values chosen before."""
    shown = {*chosen.items(), (name, value)}
    return sum((name, value) in target and target <= shown for target in missing)


def suggest_value(trial: Any, name: str, distribution: BaseDistribution) -> Value:
    """The trial's value for this parameter."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)  # type: ignore[no-any-return]
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = {} if distribution.step is None else {"step": distribution.step}
    return suggest(name, distribution.low, distribution.high, log=distribution.log, **step)  # type: ignore[no-any-return]


def is_possible(distribution: BaseDistribution, value: Value) -> bool:
    """Whether the distribution can give this value."""
    if isinstance(distribution, CategoricalDistribution):
        return _is_among(value, distribution.choices)
    return isinstance(value, int | float) and contains(distribution, value)


def _is_allowed(parameter: Parameter, chosen: Assignment) -> bool:
    if parameter.name not in chosen:
        return False
    limit = chosen.get(parameter.below) if isinstance(parameter.below, str) else parameter.below
    value = chosen[parameter.name]
    if isinstance(limit, int | float) and not (isinstance(value, int | float) and value < limit):
        return False
    return is_possible(parameter.distribution, value)


def _is_among(value: Value, values: Sequence[Value]) -> bool:
    # 1 and True, 1 and 1.0 are equal in Python and different words of a configuration.
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def _list_grid(distribution: IntDistribution | FloatDistribution) -> list[float]:
    # Only for `below`, which takes nothing but ranges with steps (sweep_grammar).
    assert distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [type(distribution.low)(distribution.low + i * distribution.step) for i in range(count)]


def list_corner_values(distribution: BaseDistribution) -> list[Value]:
    """All choices of a categorical distribution, the two ends of another."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    ends = [distribution.low, distribution.high]
    return list(dict.fromkeys(ends))
