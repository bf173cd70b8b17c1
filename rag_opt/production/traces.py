"""The traces that a served model has left in MLflow, as they are read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from rag_opt.errors import ModelError
from rag_opt.production.registry import Registry, explain_failures
from rag_opt.tracking.failures import shorten_error

if TYPE_CHECKING:
    from mlflow.entities import Trace

VERSION = "rag_opt.version"
"""The tag that names the version which answered, such as models:/mine/3."""

PAGE = 500
# What MLflow answers where a trace is gone, which differs from store to store.
MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")


def name_experiment(model: str) -> str:
    """The experiment that has the traces of a registered model."""
    return f"served {model}"


def find_traces(registry: Registry, model: str, wanted: str, *, spans: bool = True) -> Iterator[Trace]:
    """The traces of a model that MLflow's filter names, page by page; none before the first."""
    name = name_experiment(model)
    with explain_failures(registry.uri, name):
        place = registry.client.get_experiment_by_name(name)
        token = None
        while place is not None:
            page = registry.client.search_traces(
                locations=[place.experiment_id],
                filter_string=wanted,
                max_results=PAGE,
                page_token=token,
                include_spans=spans,
            )
            yield from page
            token = page.token
            if not token:
                break


def fetch_trace(registry: Registry, name: str) -> Trace | None:
    """A trace; None where it is gone. Raises ModelError where MLflow can't tell."""
    try:
        # By default MLflow draws a trace that is read in a notebook.
        found: Trace = registry.client.get_trace(name, display=False)
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise ModelError(f"{name}: MLflow can't tell what it was: {shorten_error(error)}") from error
    return found


def get_question(trace: Trace) -> str:
    """What was asked; "" where the trace does not say."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    given = root.inputs if root is not None else None
    return str(given.get("question", "")).strip() if isinstance(given, Mapping) else ""
