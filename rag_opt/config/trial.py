"""A trial's configuration, composed once: what builds, measures, exports or shows it needs no Hydra any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from rag_opt.config.compose import MOST_COMPOSED, Words, compose_config, get_choices
from rag_opt.config.fingerprints import normalize_for_key
from rag_opt.config.own_pipelines import PARAMETERS, SIDES
from rag_opt.config.stages import WHOLE, get_stages
from rag_opt.config.trust import to_plain
from rag_opt.records.keys import compute_key

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
    config = compose_config(words)
    # As long as that is kept: one that was composed anew may be of other files.
    known = _trials.get(tuple(words))
    if known is None or known[0] is not config:
        known = _trials[tuple(words)] = config, build_trial_config(config, words)
        if len(_trials) > MOST_COMPOSED:
            del _trials[next(iter(_trials))]
    return known[1]


_trials: dict[tuple[str, ...], tuple[DictConfig, TrialConfig]] = {}
"""What was built of the configurations that were composed last."""


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
    # A proxy, since everyone who asks for the same words gets the same object.
    return TrialConfig(tuple(words), MappingProxyType(stages), tuple(to_plain(config.trusted_modules)))


def compute_fingerprint(config: DictConfig, groups: Iterable[str] = ()) -> str:
    """The content key of these groups (none: the pipeline's), less how patiently a model is asked and at what price."""
    trusted, wanted = to_plain(config.trusted_modules), tuple(groups) or get_stages(config)
    return compute_key({group: normalize_for_key(to_plain(config[group]), trusted) for group in wanted})
