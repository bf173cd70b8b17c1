"""What a search space holds, counted and walked through; and how a configuration that lies beside it gets into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.config.overrides import format_overrides
from rag_opt.config.search_space import Assignment, Parameter, SearchSpace, Value, is_possible
from rag_opt.errors import SearchSpaceError


def count_configurations(space: SearchSpace, limit: int) -> int:
    """How many configurations the space holds; `limit` where it holds that many, more, or a real number."""
    return _count(space.parameters, {}, limit)


def iterate_configurations(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """The configurations of a space without real numbers, the first parameter's values changing last."""
    return _walk(space.parameters, {})


def _count(parameters: Sequence[Parameter], chosen: Assignment, limit: int) -> int:
    if not parameters:
        return min(1, limit)
    first, rest = parameters[0], parameters[1:]
    if not first.is_active(chosen):
        return _count(rest, chosen, limit)
    values = _list_values(first.get_distribution(chosen), limit)
    if values is None:
        return limit
    found = 0
    for value in values:
        # What is left of the limit goes down with it, or a space of many dimensions would be walked through whole.
        found += _count(rest, {**chosen, first.name: value}, limit - found)
        if found >= limit:
            break
    return found


def _walk(parameters: Sequence[Parameter], chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if not parameters:
        yield chosen
        return
    first, rest = parameters[0], parameters[1:]
    if not first.is_active(chosen):
        yield from _walk(rest, chosen)
        return
    for value in _list_values(first.get_distribution(chosen)) or ():
        yield from _walk(rest, {**chosen, first.name: value})


def _list_values(distribution: BaseDistribution, most: int | None = None) -> list[Value] | None:
    """The distribution's values, `most` of them where told; None for real numbers."""
    if isinstance(distribution, CategoricalDistribution):
        return list(islice(distribution.choices, most))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        return None
    # Rounded, since floating point seldom divides evenly: 0.6 / 0.1 falls short of 6.
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [_get_value(distribution, place) for place in range(count if most is None else min(count, most))]


def _get_value(distribution: IntDistribution | FloatDistribution, place: int) -> Value:
    assert distribution.step is not None
    return type(distribution.low)(distribution.low + place * distribution.step)


def include_values(space: SearchSpace, own: Assignment) -> tuple[SearchSpace, list[str]]:
    """The space with the numbers that the configuration itself has added to their choices, and a line for each."""
    found, told = list[Parameter](), list[str]()
    active = space.select_active(own)
    for parameter in space.parameters:
        value, distribution = active.get(parameter.name), parameter.distribution
        if isinstance(distribution, CategoricalDistribution) and _is_missing(distribution, value):
            assert isinstance(value, int | float)
            numbers = sorted([*distribution.choices, value], key=lambda each: float(str(each)))
            text = f"choice({', '.join(map(str, numbers))})"
            told.append(
                f"{format_overrides({parameter.name: value})[0]} is not in {parameter.text}: added, for trial 0 "
                "measures it"
            )
            parameter = replace(parameter, distribution=CategoricalDistribution(numbers), text=text)  # noqa: PLW2901
        found.append(parameter)
    return SearchSpace(tuple(found)), told


def _is_missing(distribution: CategoricalDistribution, value: Value) -> bool:
    """Whether a number is missing among numbers."""
    return _is_number(value) and all(map(_is_number, distribution.choices)) and not is_possible(distribution, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def move_to_nearest(space: SearchSpace, own: Assignment) -> tuple[dict[str, Value], list[str]]:
    """The values, numbers beside their range moved to its nearest value; and a line for each that was moved.

    What has no nearest value stays as it is.
    """
    found, told = dict(own), list[str]()
    # Parents come first: one that was moved may leave its children another upper end.
    for parameter in space.parameters:
        if parameter.name not in found or not parameter.is_active(space.select_active(found)):
            continue
        value, moved = found[parameter.name], _find_nearest(parameter, found)
        if moved != value:
            found[parameter.name] = moved
            told.append(
                f"{format_overrides({parameter.name: value})[0]} is not in {parameter.text}: trial 0 begins with the "
                "nearest, "
                f"{moved:g}"
            )
    return found, told


def get_middle(distribution: BaseDistribution) -> Value:
    """The first of choices, the middle of a range: where to begin with what has no value of its own."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        return (distribution.low + distribution.high) / 2
    return _get_value(distribution, round((distribution.high - distribution.low) / distribution.step) // 2)


def _find_nearest(parameter: Parameter, chosen: Assignment) -> Value:
    """The parameter's value, or the nearest that it may have."""
    value = chosen[parameter.name]
    if isinstance(parameter.distribution, CategoricalDistribution) or not isinstance(value, int | float):
        return value
    try:
        limited = parameter.get_distribution(chosen)
    # Nothing of the range is left below its parent, so there is no nearest value.
    except SearchSpaceError:
        return value
    assert isinstance(limited, IntDistribution | FloatDistribution)
    # True is 1 to Python, but not near any number of a configuration.
    if is_possible(limited, value) or isinstance(value, bool):
        return value
    kept = min(max(value, limited.low), limited.high)
    if limited.step is None:
        return kept
    return _get_value(limited, round((kept - limited.low) / limited.step))


def get_max_depth(space: SearchSpace) -> int:
    """How deep the space ranks at most; 0 where it does not search that."""
    ends = [parameter.largest for parameter in space.parameters if parameter.name == "retriever.depth"]
    return max((end for end in ends if isinstance(end, int)), default=0)
