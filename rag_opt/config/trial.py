"""A trial's configuration, composed once: what builds, measures, exports or shows it needs no Hydra any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from rag_opt.config.compose import WHOLE, Words, compose_config, forget_configs, get_choices, get_stages
from rag_opt.config.own_pipelines import PARAMETERS, SIDES
from rag_opt.config.trust import to_plain

WIRING = ("components", "chat", "scorer")
"""What a stage's file is made of beside its parameters."""


@dataclass(frozen=True)
class StageConfig:
    """A stage of the pipeline: the file that its group chose, and what stands in it, interpolations resolved."""

    choice: str
    values: Mapping[str, Any]

    @property
    def components(self) -> Mapping[str, Mapping[str, Any]]:
        """Each component's `_target_` and parameters, by its name."""
        found: Mapping[str, Mapping[str, Any]] = self.values["components"]
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """What can be set, without the wiring."""
        return {key: value for key, value in self.values.items() if key not in WIRING}


@dataclass(frozen=True, eq=False)
class TrialConfig:
    """A pipeline as configured: its stages in the order of the data flow, and whose classes may be built.

    `words` are the overrides that it was composed of. Not to be changed.
    """

    words: tuple[str, ...]
    stages: Mapping[str, StageConfig]
    trusted: tuple[str, ...]

    @property
    def components(self) -> dict[str, Mapping[str, Any]]:
        """Every component of every stage, by its name."""
        return {name: node for stage in self.stages.values() for name, node in stage.components.items()}

    @property
    def asks_models(self) -> bool:
        """Whether any component calls a language model."""
        return any("chat" in node for node in self.components.values())

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """What can be set, by stage: the configuration as it is shown and kept."""
        return {name: stage.parameters for name, stage in self.stages.items()}


def compose_trial(words: Words) -> TrialConfig:
    """The configuration of the pipeline that these overrides describe; raises ConfigError in one line."""
    return _compose_trial(tuple(words))


@lru_cache(maxsize=128)
def _compose_trial(words: tuple[str, ...]) -> TrialConfig:
    return build_trial_config(compose_config(words), words)


def forget_files() -> None:
    """Have files of a configuration read anew: in a notebook one may have changed since the last study."""
    forget_configs()
    _compose_trial.cache_clear()


def _read_stage(config: DictConfig, stage: str) -> dict[str, Any]:
    """What stands in a stage's file; of a pipeline that is brought whole its parameters, too."""
    values: dict[str, Any] = to_plain(config[stage])
    if stage == WHOLE:
        values["parameters"] = {key: to_plain(config[key]) for key in (*SIDES, PARAMETERS) if config[key]}
    return values


def build_trial_config(config: DictConfig, words: Words) -> TrialConfig:
    """The pipeline's part of a composed configuration; `words` are what it was composed of."""
    chosen = get_choices(words)
    stages = {stage: StageConfig(chosen[stage], _read_stage(config, stage)) for stage in get_stages(config)}
    return TrialConfig(tuple(words), MappingProxyType(stages), tuple(to_plain(config.trusted_modules)))
