"""Python values → what a command line names: files of documents and questions, a search space, a metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rag_opt.config.compose import FOLDER, STAGES, choices
from rag_opt.config.overrides import word_of
from rag_opt.config.typed import SEARCH_PATH, search_path_list
from rag_opt.errors import ConfigError

Rows = Any
"""Documents or questions: a path, or an iterable of dicts: a list, a pandas DataFrame, a Hugging Face dataset."""

SPACE = "given"
"""The name of the search space that a dict becomes."""


def dataset_words(documents: Rows, questions: Rows, folder: Path) -> list[str]:
    """The overrides for a user's documents and questions; rows are written below the study's folder.

    None for both: the default dataset. A folder as `documents` alone: a BEIR collection. Raises ConfigError.
    """
    if documents is None and questions is None:
        return []
    if questions is None:
        if not isinstance(documents, str | Path) or not Path(documents).is_dir():
            raise ConfigError("questions: none were given; a folder in BEIR's layout as documents has its own")
        return ["dataset=beir", f"dataset.path={word_of(str(documents))}"]
    places = {
        key: _place(key, given, folder / "data" / f"{key}.jsonl")
        for key, given in (("documents", documents), ("questions", questions))
    }
    return ["dataset=jsonl", *(f"dataset.{key}={word_of(place)}" for key, place in places.items())]


def _place(key: str, given: Rows, path: Path) -> str:
    """Where the rows lie, as text: the path that was given, or the file that they are written to."""
    if isinstance(given, str | Path):
        return str(given)
    rows = given.to_dict("records") if hasattr(given, "to_dict") and hasattr(given, "columns") else given
    if not isinstance(rows, Iterable):
        raise ConfigError(f"{key}: a path, a list of dicts, a DataFrame or a dataset is expected, not {given!r}"[:300])
    text = "".join(f"{_line(key, number, row)}\n" for number, row in enumerate(rows, 1))
    _write(path, text)
    return str(path)


def _write(path: Path, text: str) -> None:
    """Write a file whole, unless it holds this already: a study under way may be reading it."""
    if path.is_file() and path.read_text("utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}")
    whole.write_text(text, "utf-8")
    whole.replace(path)


def _line(key: str, number: int, row: Any) -> str:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{key}: row {number} is a {type(row).__name__}, where a dict is expected: {row!r}"[:300])
    # What a DataFrame has no value for is nan there.
    kept = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
    try:
        return json.dumps(kept, ensure_ascii=False, default=_plain)
    except TypeError as error:
        raise ConfigError(f"{key}: row {number} can't be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """The Python value of a NumPy one."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def space_words(space: str | Mapping[str, Any] | None, folder: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The overrides for a search space: its name, or a file below the study's folder that a dict becomes.

    A list is a choice, a pair of whole numbers a range with both ends, a pair with a float an interval, a text Hydra's
    grammar; a dict says `values` with `when` or `below`. Where a parameter of ours exists only with some choices and
    nothing is said, what our own spaces say is taken. Where the configuration's own choice of a stage (with these
    overrides) is in no list, the first one becomes its own, which trial 0 measures. Raises ConfigError.
    """
    if space is None or isinstance(space, str):
        return [] if space is None else [f"search_space={space}"]
    known = _known_conditions()
    node = {key: _parameter(key, given, known.get(key, {}), space) for key, given in space.items()}
    path = folder / "conf" / "search_space" / f"{SPACE}.yaml"
    text = yaml.safe_dump(node, sort_keys=False, allow_unicode=True)
    _write(path, f"# The search space that was given in Python.\n{text}")
    place = search_path_list([f"file://{(folder / 'conf').resolve().as_posix()}"])
    words = [f"{SEARCH_PATH}={place}", f"search_space={SPACE}"]
    own = choices(overrides)
    first = {
        key: given[0]
        for key, given in space.items()
        if key in STAGES and isinstance(given, list) and own[key] not in given
    }
    if not first:
        return words
    experiment = {"defaults": [{f"override /{group}": choice} for group, choice in first.items()]}
    text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
    _write(folder / "conf" / "experiment" / f"{SPACE}.yaml", f"# @package _global_\n{text}")
    return [*words, f"+experiment={SPACE}"]


def _parameter(key: str, given: Any, known: Mapping[str, Any], space: Mapping[str, Any]) -> Any:
    if isinstance(given, Mapping):
        return {**given, "values": _values(key, given.get("values"))}
    values = _values(key, given)
    found = {parent: _held(value, space[parent]) for parent, value in known.items() if parent in space}
    when = {parent: value for parent, value in found.items() if value != space[parent]}
    return {"values": values, "when": when} if when else values


def _held(condition: Any, given: Any) -> Any:
    """The values of a condition that its parent can have, where these are listed."""
    wanted = condition if isinstance(condition, list) else [condition]
    return [value for value in given if value in wanted] if isinstance(given, list) else condition


def _values(key: str, given: Any) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given:
        return f"choice({', '.join(word_of(value) for value in given)})"
    numbers = isinstance(given, tuple) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in given)
    if numbers and len(given) == 2:
        low, high = given
        whole = isinstance(low, int) and isinstance(high, int)
        return f"range({low}, {high + 1})" if whole else f"interval({float(low)!r}, {float(high)!r})"
    raise ConfigError(
        f"space: {key}: {given!r}: a list of choices, a pair (least, greatest), or text in Hydra's grammar is expected"[
            :300
        ]
    )


def _known_conditions() -> dict[str, Mapping[str, Any]]:
    """When the parameters of our own spaces exist; of several spaces the widest counts."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in ("retrieval", "chunking", "answering", "whole"):
        node = yaml.safe_load((FOLDER / "search_space" / f"{name}.yaml").read_text("utf-8"))
        for key, value in node.items():
            if isinstance(value, dict) and "when" in value:
                found.setdefault(key, value["when"])
    return found


def metric_words(metric: str | Sequence[str] | Callable[..., Any] | None, direction: str | None) -> list[str]:
    """The overrides for what is optimised: a metric's name, several names, or a Python function by its own name."""
    if metric is None:
        return []
    if callable(metric):
        name = getattr(metric, "__name__", "metric").strip("<>")
        own = f"{{function: {word_of(f'given.{name}')}, direction: {direction or 'maximize'}, needs: ''}}"
        return [f"objective.metrics=[{name}]", f"+objective.own.{name}={own}"]
    names = [metric] if isinstance(metric, str) else list(metric)
    words = [f"objective.metrics=[{', '.join(word_of(name) for name in names)}]"]
    return [*words, f"objective.directions=[{direction}]"] if direction else words
