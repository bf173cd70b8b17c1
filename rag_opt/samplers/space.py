"""A conditional space as finished trials show it: which parameters there are, and when each of them exists.

Optuna's spaces are defined by running: nobody tells a sampler that hybrid_weight exists only for retriever=hybrid. It
is learnt: the smallest set of earlier parameters of which a parameter's presence is a function in all trials so far.
What is learnt never contradicts a trial, so a configuration that differs from all measured ones in what is believed
differs from them in truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Params = Mapping[str, Any]
Units = NDArray[np.float64]
"""Configurations × parameters: an index of choices, or a place between 0 and 1; ABSENT where one does not exist."""

ABSENT = -1.0

MOST_LEVELS = 1000
"""Of a discrete parameter; one with more is taken for continuous."""

MOST_PARENTS = 3
"""On which a parameter's presence may depend, before all earlier ones are taken."""

ENUMERATED = 20_000
"""Combinations that are listed, not drawn."""


@dataclass(frozen=True)
class Axis:
    """One parameter: its distribution and, where it is discrete, the units of all its values."""

    name: str
    distribution: BaseDistribution
    levels: NDArray[np.float64] | None

    @property
    def named(self) -> bool:
        """Whether its values are names, between which there is no distance but equal or not."""
        return isinstance(self.distribution, CategoricalDistribution) and self.ranks is None

    @property
    def ranks(self) -> NDArray[np.float64] | None:
        """Of choices that are all numbers: their ranks between 0 and 1."""
        if not isinstance(self.distribution, CategoricalDistribution):
            return None
        choices = self.distribution.choices
        if len(choices) < 2 or not all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
            return None
        order = np.argsort(np.argsort(np.array(choices, np.float64)))
        return order / (len(choices) - 1)

    def to_units(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """The places of values; a number outside of the range is at its end, one between levels at the nearest."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return np.array([d.to_internal_repr(value) for value in values], np.float64)
        found = self._scale_values(np.array(values, np.float64))
        if self.levels is None:
            return found
        nearest: NDArray[np.float64] = self.levels[np.abs(self.levels - found[:, None]).argmin(axis=1)]
        return nearest

    def _scale_values(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        d = self.distribution
        assert isinstance(d, IntDistribution | FloatDistribution)
        if d.high == d.low:
            return np.full(len(values), 0.5)
        inside = np.clip(values, d.low, d.high)
        if d.log:
            logs: NDArray[np.float64] = (np.log(inside) - np.log(d.low)) / (np.log(d.high) - np.log(d.low))
            return logs
        # Halves: the difference of two ends may be more than a float holds.
        scaled: NDArray[np.float64] = (inside / 2 - d.low / 2) / (d.high / 2 - d.low / 2)
        return scaled

    def to_value(self, unit: float) -> Any:
        """The value at a place, as Optuna wants it."""
        return self.to_values(np.array([unit]))[0]

    def to_values(self, units: NDArray[np.float64]) -> list[Any]:
        """The values at these places."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return [d.choices[index] for index in units.astype(int).tolist()]
        numbers: list[float] = self._unscale_units(units).tolist()
        return [int(number) for number in numbers] if isinstance(d, IntDistribution) else numbers

    def snap_units(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """The places of the values that these places stand for: the same, but where values come in steps."""
        stepped = getattr(self.distribution, "step", None) is not None and self.levels is None
        return self._scale_values(self._unscale_units(units)) if stepped else units

    def _unscale_units(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        d = self.distribution
        assert isinstance(d, IntDistribution | FloatDistribution)
        low, high = float(d.low), float(d.high)
        raw = np.exp(np.log(low) * (1 - units) + np.log(high) * units) if d.log else low * (1 - units) + high * units
        if d.step is not None:
            raw = np.round(raw) if d.log else low + np.round((raw - low) / d.step) * d.step
        return np.clip(raw, low, high)

    def sample_units(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Units of values, each equally likely; of a continuous parameter, uniform on its scale."""
        return self.snap_units(rng.random(count)) if self.levels is None else rng.choice(self.levels, count)


def build_axis(name: str, distribution: BaseDistribution) -> Axis:
    """The parameter with the levels that its distribution has."""
    whole = Axis(name, distribution, None)
    if isinstance(distribution, CategoricalDistribution):
        # Of choices that are equal in Python, as 1 and True, Optuna knows the first.
        indices = {distribution.to_internal_repr(choice) for choice in distribution.choices}
        return Axis(name, distribution, np.array(sorted(indices), np.float64))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = distribution.step
    if step is None or (distribution.high - distribution.low) / step + 1 > MOST_LEVELS:
        return whole
    count = round((distribution.high - distribution.low) / step) + 1
    return Axis(name, distribution, whole.to_units([distribution.low + index * step for index in range(count)]))


@dataclass(frozen=True)
class Condition:
    """When a parameter exists: for these combinations of its parents' units."""

    parents: tuple[int, ...]
    exists: frozenset[tuple[float, ...]]

    def holds(self, units: Units) -> NDArray[np.bool_]:
        """One truth a row, from the columns of the parents."""
        found = np.zeros(len(units), bool)
        rows = units[:, self.parents]
        for combination in self.exists:
            found |= (rows == combination).all(axis=1)
        return found


@dataclass(frozen=True)
class Space:
    """Parameters in the order in which they are asked for, and their conditions; None where one always exists."""

    axes: tuple[Axis, ...]
    conditions: tuple[Condition | None, ...]

    def to_units(self, configurations: Sequence[Params]) -> Units:
        """Where these configurations lie; parameters that the space lacks are left out, numbers outside are clipped."""
        columns = {axis.name: column for column, axis in enumerate(self.axes)}
        found = np.full((len(configurations), len(self.axes)), ABSENT)
        places: list[list[int]] = [[] for _ in self.axes]
        values: list[list[Any]] = [[] for _ in self.axes]
        for row, each in enumerate(configurations):
            for name, value in each.items():
                if (column := columns.get(name, -1)) >= 0:
                    places[column].append(row)
                    values[column].append(value)
        for column, axis in enumerate(self.axes):
            if places[column]:
                found[places[column], column] = axis.to_units(values[column])
        return found

    def to_configurations(self, rows: Units) -> list[dict[str, Any]]:
        """The values of each row's parameters that exist."""
        found: list[dict[str, Any]] = [{} for _ in rows]
        for column, axis in enumerate(self.axes):
            here = np.flatnonzero(rows[:, column] != ABSENT)
            for row, value in zip(here.tolist(), axis.to_values(rows[here, column]), strict=True):
                found[row][axis.name] = value
        return found

    def apply_conditions(self, units: Units) -> Units:
        """The rows with ABSENT where a parameter does not exist for them."""
        found = units.copy()
        for column, condition in enumerate(self.conditions):
            if condition is not None:
                found[~condition.holds(found), column] = ABSENT
        return found

    @cached_property
    def listed(self) -> Units | None:
        """All configurations, each once; None where they are more than ENUMERATED, or without end."""
        rows = np.full((1, len(self.axes)), ABSENT)
        for column, (axis, condition) in enumerate(zip(self.axes, self.conditions, strict=True)):
            here = np.ones(len(rows), bool) if condition is None else condition.holds(rows)
            # Counted before they are made: a large space would fill the memory.
            if axis.levels is None or len(rows) + here.sum() * (len(axis.levels) - 1) > ENUMERATED:
                return None
            wider = np.repeat(rows[here], len(axis.levels), axis=0)
            wider[:, column] = np.tile(axis.levels, int(here.sum()))
            rows = np.concatenate([rows[~here], wider])
        return np.unique(rows, axis=0)

    def sample_units(self, rng: np.random.Generator, count: int) -> Units:
        """Configurations at random."""
        return self.apply_conditions(np.stack([axis.sample_units(rng, count) for axis in self.axes], axis=1))

    def sample_neighbours(self, rng: np.random.Generator, rows: Units, count: int, width: float) -> Units:
        """Configurations that differ from one of the rows in one or two parameters, numbers by about `width`."""
        start = rows[rng.integers(len(rows), size=count)]
        # What a row lacks may come to exist when a parent changes.
        fresh = np.stack([axis.sample_units(rng, count) for axis in self.axes], axis=1)
        found = np.where(start == ABSENT, fresh, start)
        for _ in range(2):
            changed = rng.integers(len(self.axes), size=count)
            again = rng.random(count) < 0.5
            for column, axis in enumerate(self.axes):
                here = (changed == column) & (again if _ else True)
                found[here, column] = _perturb_units(axis, found[here, column], fresh[here, column], rng, width)
        return self.apply_conditions(found)


def _perturb_units(
    axis: Axis, units: NDArray[np.float64], fresh: NDArray[np.float64], rng: np.random.Generator, width: float
) -> NDArray[np.float64]:
    if isinstance(axis.distribution, CategoricalDistribution):
        return fresh
    moved = np.clip(units + rng.normal(0, width, len(units)), 0, 1)
    if axis.levels is None or not len(units):
        return axis.snap_units(moved)
    # The nearest level on the way: at least one step, or nothing would change.
    order = np.abs(axis.levels[None, :] - moved[:, None])
    order[np.arange(len(units)), np.abs(axis.levels[None, :] - units[:, None]).argmin(axis=1)] = np.inf
    return axis.levels[order.argmin(axis=1)] if len(axis.levels) > 1 else units


def infer_space(configurations: Sequence[Params], distributions: Mapping[str, BaseDistribution]) -> Space:
    """The space that these configurations (at least one) are from, of parameters with these distributions."""
    order = _merge_orders([list(each) for each in configurations])
    axes = tuple(build_axis(name, distributions[name]) for name in order)
    unconditional = Space(axes, (None,) * len(axes))
    units = unconditional.to_units(configurations)
    return Space(axes, tuple(_infer_condition(units, axes, column) for column in range(len(axes))))


def merge_distributions(distributions: Iterable[Mapping[str, BaseDistribution]]) -> dict[str, BaseDistribution]:
    """One distribution a parameter: the last one, numbers with the widest range that was asked for."""
    found: dict[str, BaseDistribution] = {}
    for each in distributions:
        for name, new in each.items():
            found[name] = _widen_range(found[name], new) if name in found else new
    return found


def _widen_range(old: BaseDistribution, new: BaseDistribution) -> BaseDistribution:
    for kind in (IntDistribution, FloatDistribution):
        if isinstance(old, kind) and isinstance(new, kind) and (old.log, old.step) == (new.log, new.step):
            return kind(min(old.low, new.low), max(old.high, new.high), log=new.log, step=new.step)  # type: ignore[arg-type]
    return new


def _merge_orders(orders: Iterable[Sequence[str]]) -> list[str]:
    """One order that keeps, as far as there is one, the order of each."""
    merged: list[str] = []
    for order in orders:
        for before, name in pairwise(["", *order]):
            if name not in merged:
                merged.insert(merged.index(before) + 1 if before in merged else 0, name)
    return merged


def _infer_condition(units: Units, axes: Sequence[Axis], column: int) -> Condition | None:
    present = units[:, column] != ABSENT
    if present.all():
        return None
    earlier = [other for other in range(column) if axes[other].levels is not None]
    # What has few values explains much with little; of two such, the later one is nearer.
    earlier.sort(key=lambda other: (len(np.unique(units[:, other])), -other))
    for count in range(MOST_PARENTS + 1):
        for chosen in combinations(earlier, count):
            parents = tuple(sorted(chosen))
            exists, not_exists = _group_by(units, present, parents)
            if not exists & not_exists:
                return Condition(parents, frozenset(exists))
    everything = tuple(sorted(earlier))
    return Condition(everything, frozenset(_group_by(units, present, everything)[0]))


def _group_by(units: Units, present: NDArray[np.bool_], parents: tuple[int, ...]) -> tuple[set[Any], set[Any]]:
    rows = units[:, parents]
    return {tuple(row) for row in rows[present].tolist()}, {tuple(row) for row in rows[~present].tolist()}


def drop_seen(rows: Units, seen: Units) -> Units:
    """Those of the rows that are not among the seen ones, each once, in their order."""
    known = {row.tobytes() for row in seen}
    kept = []
    for index, row in enumerate(rows):
        key = row.tobytes()
        if key not in known:
            known.add(key)
            kept.append(index)
    return rows[kept]
