"""Reading a search space: Hydra's sweep grammar with `when` and `below`, every mistake named by its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.config.search_space import Parameter, SearchSpace, Value, is_possible, list_corner_values
from rag_opt.errors import SearchSpaceError, format_hint

FIELDS = ("values", "when", "below")


def parse_space(rows: Mapping[str, Any]) -> SearchSpace:
    """The space of a configuration's `search_space`; raises SearchSpaceError naming the first wrong key."""
    if not rows:
        raise SearchSpaceError(
            "search_space: there is nothing to search; choose search_space=retrieval, or list keys in a file of your "
            "own: `--cfg space` proposes it for pipeline=own, function and http"
        )
    parameters = [_parse_parameter(str(name), row) for name, row in rows.items()]
    space = SearchSpace(tuple(order_parameters(parameters)))
    for parameter in space.parameters:
        _check_below(parameter, space)
    return space


def _parse_parameter(name: str, row: Any) -> Parameter:
    fields = row if isinstance(row, Mapping) else {"values": row}
    for given in fields:
        if given not in FIELDS:
            raise SearchSpaceError(f"search_space: {name}: unknown key '{given}'; {format_hint(str(given), FIELDS)}")
    if "values" not in fields:
        raise SearchSpaceError(f"search_space: {name}: `values` is missing, such as values: choice(a, b)")
    when = fields.get("when") or {}
    if not isinstance(when, Mapping):
        raise SearchSpaceError(f"search_space: {name}: `when` must be {{key: value or list}}, not {when!r}")
    conditions = {str(key): tuple(value) if isinstance(value, list) else (value,) for key, value in when.items()}
    text = str(fields["values"])
    below = fields.get("below")
    return Parameter(name, _parse_distribution(name, text), text, conditions, below)


def _parse_distribution(name: str, text: str) -> BaseDistribution:
    try:
        # Hydra's own parser, so that a space is written as a sweep is on Hydra's command line.
        sweep = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException as error:
        # Hydra's own words for a null in choice() speak of Python's types alone.
        if "NoneType" in str(error):
            plain = text.strip().removeprefix("choice(").removesuffix(")").replace(" ", "")
            raise SearchSpaceError(
                f"search_space: {name}: Hydra's choice() takes no null; write the choices side by side: {plain}"
            ) from error
        reason = " ".join(str(error).split())
        raise SearchSpaceError(f"search_space: {name}: '{text}' is not of Hydra's sweep grammar: {reason}") from error
    # Only a sweep has tags; what is none is refused below.
    log = "log" in getattr(sweep, "tags", ())
    try:
        match sweep:
            case ChoiceSweep():
                return _build_categorical(name, text, sweep)
            case RangeSweep():
                return _build_range(name, text, sweep, log)
            case IntervalSweep() if sweep.start is not None and sweep.end is not None and sweep.start < sweep.end:
                return FloatDistribution(float(sweep.start), float(sweep.end), log=log)
            case IntervalSweep():
                raise SearchSpaceError(f"search_space: {name}: {text} is empty: its start must be below its end")
    except ValueError as error:
        # Optuna's own refusals, such as of a logarithmic scale that begins at 0.
        raise SearchSpaceError(f"search_space: {name}: {text}: {error}") from error
    raise SearchSpaceError(f"search_space: {name}: choice(…), range(…) or interval(…) is expected, not '{text}'")


def _build_categorical(name: str, text: str, sweep: ChoiceSweep) -> CategoricalDistribution:
    choices: list[Value] = []
    for element in sweep.list:
        # Quoted text comes as an object that remembers its quotes.
        value = element.text if isinstance(element, QuotedString) else element
        if not isinstance(value, Value):
            raise SearchSpaceError(
                f"search_space: {name}: a choice must be text, a number, true, false or null: {text}"
            )
        choices.append(value)
    # By type as well: 1, 1.0 and true are equal in Python and different words of a configuration.
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise SearchSpaceError(f"search_space: {name}: {text} names a value twice")
    return CategoricalDistribution(choices)


def _build_range(name: str, text: str, sweep: RangeSweep, log: bool) -> BaseDistribution:
    start, stop, step = sweep.start or 0, sweep.stop, sweep.step
    if stop is None or step <= 0 or start >= stop:
        raise SearchSpaceError(
            f"search_space: {name}: {text} is empty: its start must be below its end, its step above 0"
        )
    # Hydra leaves the end out, Optuna's distributions hold it: theirs ends at the last value that the steps reach.
    # In fractions of what is written: in floats (0.8 - 0.2) / 0.2 is more than 3, and the end would be a value.
    first, end, each = (Fraction(str(value)) for value in (start, stop, step))
    last = first + (-(-(end - first) // each) - 1) * each
    # Optuna has no logarithmic scale with steps other than 1.
    if log and not (isinstance(start, int) and step == 1):
        raise SearchSpaceError(
            f"search_space: {name}: {text}: a logarithmic scale needs whole steps of 1, or interval(…)"
        )
    if all(isinstance(value, int) for value in (start, stop, step)):
        return IntDistribution(int(start), int(last), log=log, step=int(step))
    return FloatDistribution(float(start), float(last), step=float(step))


def order_parameters(parameters: list[Parameter]) -> Iterator[Parameter]:
    """Parents first, otherwise in the file's order; raises SearchSpaceError at a circle or an unknown parent."""
    waiting = {p.name: p for p in parameters}
    names = set(waiting)
    while waiting:
        # A parent that is not in the space holds nobody up: `_check_parents` names it.
        free = [p for p in waiting.values() if not _get_parents(p) & set(waiting)]
        if not free:
            raise SearchSpaceError(f"search_space: {', '.join(waiting)} depend on each other in a circle")
        for parameter in free:
            _check_parents(parameter, names, parameters)
            del waiting[parameter.name]
            yield parameter


def _get_parents(parameter: Parameter) -> set[str]:
    return {*parameter.when, *([parameter.below] if isinstance(parameter.below, str) else [])}


def _check_parents(parameter: Parameter, names: set[str], parameters: list[Parameter]) -> None:
    for parent in _get_parents(parameter) - names:
        raise SearchSpaceError(
            f"search_space: {parameter.name}: its parent '{parent}' is not in the space; {format_hint(parent, names)}"
        )
    by_name = {p.name: p for p in parameters}
    for parent, values in parameter.when.items():
        for value in values:
            if not is_possible(by_name[parent].distribution, value):
                raise SearchSpaceError(
                    f"search_space: {parameter.name}: `when` can never hold: "
                    f"{parent}={value} is not in {by_name[parent].text}"
                )


def _check_below(parameter: Parameter, space: SearchSpace) -> None:
    if parameter.below is None:
        return
    distribution = parameter.distribution
    if isinstance(distribution, CategoricalDistribution) or (distribution.log or distribution.step is None):  # type: ignore[attr-defined]
        raise SearchSpaceError(f"search_space: {parameter.name}: `below` needs a range(start, stop[, step])")
    limits: list[Value] = [parameter.below]
    if isinstance(parameter.below, str):
        parent = next(p for p in space.parameters if p.name == parameter.below)
        limits = list_corner_values(parent.distribution)
    # The parent's extremes are enough: any value between them leaves more than the smallest one does.
    for limit in limits:
        if not isinstance(limit, int | float):
            raise SearchSpaceError(f"search_space: {parameter.name}: `below` needs numbers, not {limit!r}")
        parameter.get_distribution({str(parameter.below): limit})
