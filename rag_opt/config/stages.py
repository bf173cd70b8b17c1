"""The stages that pipelines are made of, and which of them a configuration has."""

from __future__ import annotations

from omegaconf import DictConfig

PARSER, FILES = "parser", "files"
"""The group that reads files, and the key of a dataset whose documents are such."""

STAGES = (PARSER, "splitter", "query", "embedder", "index", "retriever", "reranker", "context", "generator")
"""The groups that a pipeline is made of, in the order of the data flow."""

WHOLE = "pipeline"
"""The group that stands in place of all of these where its choice has components of its own."""


def get_stages(config: DictConfig) -> tuple[str, ...]:
    """The groups that this configuration's pipeline is made of: a parser is needed where documents are files."""
    stages = (PARSER, WHOLE) if config[WHOLE].get("components") else STAGES
    # The parser stands first in either.
    return stages if config.dataset.get(FILES) else stages[1:]


def is_whole(config: DictConfig) -> bool:
    """Whether its pipeline is brought whole, in place of stages."""
    return WHOLE in get_stages(config)
