"""Python values → what a command line names: files of documents and questions, a search space, a metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rag_opt.config.compose import FOLDER, Words, get_choices
from rag_opt.config.experiments import parse_search_path
from rag_opt.config.overrides import format_hydra_value
from rag_opt.config.quoting import SEARCH_PATH, format_path_list
from rag_opt.config.stages import STAGES
from rag_opt.errors import ConfigError
from rag_opt.metrics import own
from rag_opt.records.keys import compute_key
from rag_opt.system.permissions import replace_text

Rows = Any
"""Documents or questions: a path, or an iterable of dicts: a list, a pandas DataFrame, a Hugging Face dataset."""

SPACE = "given"
"""What the search space that a dict becomes is called, before a hash of it."""

EXPERIMENT = "+experiment="


@dataclass(frozen=True)
class PythonInputs:
    """The overrides that stand for Python values, and the files that these name, by place: not there yet."""

    words: tuple[str, ...] = ()
    files: Mapping[Path, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write the files that are not there: their places say what they hold, and a study may be reading them."""
        for path, text in self.files.items():
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_text(path, text)


def convert_dataset(documents: Rows, questions: Rows, folder: Path) -> PythonInputs:
    """A user's documents and questions; files of rows lie below the study's folder.

    Under the hash of what they are, so that other rows change no file that the study has. None for both: the default
    dataset. A folder as `documents` alone is a BEIR collection, with questions one of files of any format. Raises
    ConfigError.
    """
    if documents is None and questions is None:
        return PythonInputs()
    is_folder = isinstance(documents, str | Path) and Path(documents).is_dir()
    if questions is None:
        if not is_folder:
            raise ConfigError("questions: none were given; a folder in BEIR's layout as documents has its own")
        return PythonInputs(("dataset=beir", f"dataset.path={documents}"))
    given = {"documents": documents, "questions": questions}
    texts = {key: _format_rows(key, rows) for key, rows in given.items() if not isinstance(rows, str | Path)}
    place = folder / "data" / _hash_content(texts)
    places = {key: place / f"{key}.jsonl" if key in texts else rows for key, rows in given.items()}
    named = {"path": documents, "questions": places["questions"]} if is_folder else places
    words = [f"dataset={'folder' if is_folder else 'jsonl'}", *(f"dataset.{key}={path}" for key, path in named.items())]
    return PythonInputs(tuple(words), {place / f"{key}.jsonl": text for key, text in texts.items()})


def _format_rows(key: str, given: Rows) -> str:
    """The rows as JSON, a line each."""
    # A dataset of Hugging Face has to_dict, too, but gives columns by it; `columns` is what a DataFrame alone has.
    rows = given.to_dict("records") if hasattr(given, "to_dict") and hasattr(given, "columns") else given
    if not isinstance(rows, Iterable):
        raise ConfigError(f"{key}: a path, a list of dicts, a DataFrame or a dataset is expected, not {given!r}"[:300])
    return "".join(f"{_format_row(key, number, row)}\n" for number, row in enumerate(rows, 1))


def _hash_content(content: Any) -> str:
    return compute_key(content)[:8]


def _format_row(key: str, number: int, row: Any) -> str:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{key}: row {number} is a {type(row).__name__}, where a dict is expected: {row!r}"[:300])
    # What a DataFrame has no value for is nan there.
    kept = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
    try:
        return json.dumps(kept, ensure_ascii=False, default=_to_plain)
    except TypeError as error:
        raise ConfigError(f"{key}: row {number} can't be written as JSON: {error}") from error


def _to_plain(value: Any) -> Any:
    """The Python value of a NumPy one."""
    # tolist first: item() fails for an array of several values.
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def convert_space(space: str | Mapping[str, Any] | None, folder: Path, overrides: Words = ()) -> PythonInputs:
    """A search space: its name, or a file below the study's folder that a dict becomes.

    A list is a choice, a pair of whole numbers a range with both ends, a pair with a float an interval, a text Hydra's
    grammar; a dict says `values` with `when` or `below`. Where a parameter of ours exists only with some choices and
    nothing is said, what our own spaces say is taken. Where the configuration's own choice of a stage (with these
    overrides) is in no list, the first one becomes its own, which trial 0 measures. Raises ConfigError.
    """
    if space is None or isinstance(space, str):
        return PythonInputs(() if space is None else (f"search_space={space}",))
    known = _read_conditions()
    node = {key: _build_parameter(key, given, known.get(key, {}), space) for key, given in space.items()}
    first = _find_first_choices(space, overrides)
    name = f"{SPACE}-{_hash_content([node, first])}"
    conf = folder / "conf"
    files = {conf / "search_space" / f"{name}.yaml": _format_yaml("# A search space that was given in Python.", node)}
    places = [f"file://{conf.resolve().as_posix()}", *parse_search_path(overrides)]
    words = [f"{SEARCH_PATH}={format_path_list(places)}", f"search_space={name}"]
    if first:
        chosen = {"defaults": [{f"override /{group}": choice} for group, choice in first.items()]}
        files[conf / "experiment" / f"{name}.yaml"] = _format_yaml("# @package _global_", chosen)
        words.append(f"{EXPERIMENT}{name}")
    return PythonInputs(tuple(words), files)


def _find_first_choices(space: Mapping[str, Any], overrides: Words) -> dict[str, str]:
    """The first of its listed choices for each stage whose own choice is not among them."""
    own = get_choices(overrides)
    listed = {key: given for key, given in space.items() if key in STAGES and isinstance(given, list) and given}
    found = {key: str(given[0]) for key, given in listed.items() if own[key] not in given}
    chosen = next((word for word in overrides if word.startswith(EXPERIMENT)), None)
    # The first choices need an experiment of their own, and a configuration has one.
    if found and chosen is not None:
        key = next(iter(found))
        raise ConfigError(f"space: {key}: with {chosen} the configuration's own is {own[key]}; add it to the list")
    return found


def _format_yaml(head: str, node: Mapping[str, Any]) -> str:
    return f"{head}\n{yaml.safe_dump(dict(node), sort_keys=False, allow_unicode=True)}"


def _build_parameter(key: str, given: Any, known: Mapping[str, Any], space: Mapping[str, Any]) -> Any:
    if isinstance(given, Mapping):
        return {**given, "values": _format_values(key, given.get("values"))}
    values = _format_values(key, given)
    found = {parent: _narrow_condition(value, space[parent]) for parent, value in known.items() if parent in space}
    # What every listed choice of the parent allows is no condition.
    when = {parent: value for parent, value in found.items() if value != space[parent]}
    return {"values": values, "when": when} if when else values


def _narrow_condition(condition: Any, given: Any) -> Any:
    """The values of a condition that its parent can have, where these are listed."""
    wanted = condition if isinstance(condition, list) else [condition]
    return [value for value in given if value in wanted] if isinstance(given, list) else condition


def _format_values(key: str, given: Any) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given:
        return f"choice({', '.join(format_hydra_value(_to_scalar(value)) for value in given)})"
    ends = [_to_scalar(value) for value in given] if isinstance(given, tuple) else []
    if len(ends) == 2 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        low, high = ends
        whole = isinstance(low, int) and isinstance(high, int)
        # Hydra's range leaves its end out, where a pair means both.
        return f"range({low}, {high + 1})" if whole else f"interval({float(low)!r}, {float(high)!r})"
    expected = "a list of choices, a pair (least, greatest), or text in Hydra's grammar is expected"
    raise ConfigError(f"space: {key}: {str(given)[:200]}: {expected}")


def _to_scalar(value: Any) -> Any:
    """The Python value of a NumPy one, any other as it is."""
    return value.item() if hasattr(value, "item") else value


def _read_conditions() -> dict[str, Mapping[str, Any]]:
    """When the parameters of our own spaces exist; of several spaces the widest counts."""
    found: dict[str, Mapping[str, Any]] = {}
    # The widest space first, since the first that says when counts.
    for name in ("whole", "answering", "chunking", "retrieval"):
        node = yaml.safe_load((FOLDER / "search_space" / f"{name}.yaml").read_text("utf-8"))
        for key, value in node.items():
            if isinstance(value, dict) and "when" in value:
                found.setdefault(key, value["when"])
    return found


def convert_metric(metric: str | Sequence[str] | Callable[..., Any] | None, direction: str | None) -> list[str]:
    """The overrides for what is optimised: a metric's name, several names, or a Python function by its own name."""
    if callable(metric):
        name = get_metric_name(metric)
        own_node = f"{{function: {own.BEHIND}{name}, direction: {direction or 'maximize'}, needs: ''}}"
        return [f"objective.metrics=[{name}]", f"+objective.own.{name}={own_node}"]
    names = [metric] if isinstance(metric, str) else metric
    words = [] if names is None else [f"objective.metrics=[{', '.join(format_hydra_value(name) for name in names)}]"]
    return [*words, f"objective.directions=[{direction}]"] if direction else words


def get_metric_name(metric: Callable[..., Any]) -> str:
    """What a function is called among metrics: its own name."""
    # A lambda's name is <lambda>.
    return str(getattr(metric, "__name__", "metric")).strip("<>")
