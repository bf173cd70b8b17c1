"""A search space proposed for something of one's own: its parameters with ranges around their values, to be edited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig

from rag_opt.config.overrides import format_hydra_value
from rag_opt.config.own_pipelines import NONE, PARAMETERS, SIDES, TYPE
from rag_opt.config.trust import import_target, to_plain

UNSEARCHED = (
    *("timeout", "max_retries", "batch_size", "progress_bar", "num_workers", "seed", "raise_on_failure", "port"),
    *("return_embedding", "scale_score", "store_full_path", "shared", "max_connections", "http2", "trust_remote_code"),
    *("tokenizer_kwargs", "skip_empty_documents", "secondary_split", "verify", "create_extension", "recreate_table"),
    *(
        "language",
        "strict_datetime_comparison",
        "tool_streaming_callback_passthrough",
        "tool_concurrency_limit",
        "sort_by_score",
    ),
    *("keep_id", "use_split_rules", "extend_abbreviations"),
)
"""Parameters that change how something runs, not what it gives, or only with values of others."""

DOWNLOADS = {"respect_sentence_boundary": "true downloads NLTK's punkt_tab"}
"""Parameters that fetch something where they are set, and why they are offered in comments alone."""

SHARES = ("weight", "threshold", "top_p", "alpha", "ratio", "percentile", "temperature", "lambda", "diversity")
"""Parts of the names of numbers from 0 to 1."""

STORES = ".document_stores."
MOST = 5
"""Names of a Literal that are searched without being asked for."""


def propose_space(config: DictConfig) -> str:
    """The file of a search space: each numeric, boolean and Literal parameter with values around its own.

    What no range can be guessed for stands in comments.
    """
    lines = [
        "# Proposed from the parameters' own values (behind each): delete what is not to be searched, mend the rest."
    ]
    for side in SIDES:
        for component, values in to_plain(config[side]).items():
            if isinstance(values, Mapping) and values.get(TYPE) != NONE:
                lines += [*_propose_component(f"{side}.{component}", values), ""]
    parameters = to_plain(config[PARAMETERS])
    told = [_format_line(f"{PARAMETERS}.{name}", value, None) for name, value in parameters.items()]
    lines += [line for line in told if line is not None]
    return "\n".join(lines).rstrip() + "\n"


def _propose_component(where: str, values: Mapping[str, Any]) -> Iterator[str]:
    kind = str(values.get(TYPE, ""))
    yield f"# {where}: {kind.rpartition('.')[2]}"
    yield f"# {where}.{TYPE}: choice({kind}, {NONE})"
    annotations = _get_annotations(kind)
    for name, value in values.items():
        if name == TYPE or name in UNSEARCHED:
            continue
        if isinstance(value, Mapping) and TYPE in value and STORES not in str(value[TYPE]):
            yield from _propose_component(f"{where}.{name}", value)
        elif (line := _format_line(f"{where}.{name}", value, annotations.get(name))) is not None:
            yield line


def _get_annotations(kind: str) -> Mapping[str, Any]:
    try:
        return get_type_hints(import_target(kind).__init__)
    except Exception:
        # A class that can't be imported, or annotations that can't be read: its values alone are proposed from.
        return {}


def _format_line(key: str, value: Any, annotation: Any) -> str | None:
    """A parameter's line; None where there is nothing to say of it."""
    choices = _find_literal(annotation)
    if choices:
        # A choice that the present value is none of has no baseline; of many some need what is not there.
        mark = "" if value in choices and len(choices) <= MOST else "# "
        return f"{mark}{key}: choice({', '.join(format_hydra_value(each) for each in choices)})    # {value}"
    # Before int, which a bool is to Python.
    if isinstance(value, bool):
        why = DOWNLOADS.get(key.rpartition(".")[2])
        mark, about = ("# ", f"; {why}") if why else ("", "")
        return f"{mark}{key}: choice(true, false)    # {format_hydra_value(value)}{about}"
    if isinstance(value, int):
        return _format_range(key, value)
    if isinstance(value, float):
        return _format_interval(key, value)
    # As of `int | None` where None is the present value.
    numeric = {int, float} & set(get_args(annotation))
    return f"# {key}: null here; a number" if value is None and numeric else None


def _find_literal(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of one beside None; () for any other type."""
    if get_origin(annotation) in (Union, UnionType):
        return next((found for each in get_args(annotation) if (found := _find_literal(each))), ())
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _format_range(key: str, value: int) -> str:
    if value < 1:
        return f"# {key}: {value} here; a range such as range(0, 11)"
    # Some seven values, from about half of the present one to twice it.
    step = max(1, value // 4)
    least = max(1, value - 2 * step)
    # In steps from its own value, so that this is among them.
    least += (value - least) % step
    # One more than the last value, since Hydra leaves the end of a range out.
    return f"{key}: range({least}, {value + 4 * step + 1}, {step})    # {value}"


def _format_interval(key: str, value: float) -> str:
    name = key.rpartition(".")[2]
    if 0 <= value <= 1 and any(part in name for part in SHARES):
        return f"{key}: interval(0.0, 1.0)    # {value:g}"
    if value <= 0 or not math.isfinite(value):
        return f"# {key}: {value:g} here; a range such as interval(0.0, 1.0)"
    return f"{key}: interval({value / 2:g}, {value * 2:g})    # {value:g}"
