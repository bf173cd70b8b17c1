"""A command line → everything a study needs, checked before the study is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import optuna
from omegaconf import DictConfig

from rag_opt.components.models.speed import fast_precision
from rag_opt.config.compose import STAGES, composed, fingerprint, prompt_of
from rag_opt.config.configurations import deepest
from rag_opt.config.overrides import words
from rag_opt.config.settings import Settings, settings_of
from rag_opt.config.shape import check_shape
from rag_opt.config.trial import TrialConfig, compose_trial, trial_of
from rag_opt.config.trust import check_secrets, plain
from rag_opt.console.progress import say
from rag_opt.console.secrets import know
from rag_opt.datasets.checks import split, split_print
from rag_opt.errors import ConfigError, RagOptError, SearchSpaceError
from rag_opt.evaluation.bench import Bench, loaded, resources_of
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.objective import Objective, measurable, objective_of
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.evaluation.unused import unused
from rag_opt.llm.budget import Budget
from rag_opt.metrics.catalogue import RANKS
from rag_opt.records.keys import key_of
from rag_opt.storages.drift import Parts, parts_of
from rag_opt.storages.trial_files import TrialFiles
from rag_opt.study.beginnings import Values, beginnings, default_values, own_values, searched
from rag_opt.study.drawing import check_search
from rag_opt.study.idle import stirring
from rag_opt.system.environment import use_threads

if TYPE_CHECKING:
    from rag_opt.cache.store import Store
    from rag_opt.components.resources import Resources
    from rag_opt.config.search_space import SearchSpace
    from rag_opt.llm.client import LLMClient
    from rag_opt.records.documents import Dataset

TIMED_APART = "one question at a time, apart from the search"
"""How latency is measured where it decides; before, by what stages took when the search first ran them."""

RANKED = "whatever is handed on"
"""How rankings are measured; before, what was handed on was all that was measured."""


@dataclass(frozen=True)
class Plan:
    """A study that can run: nothing in it depends on whether it ran before.

    `shown` are the configuration that the command line describes and others that together show every choice.
    """

    config: DictConfig
    settings: Settings
    space: SearchSpace
    shown: tuple[TrialConfig, ...]
    seeds: tuple[Values, ...]
    objective: Objective
    dataset: Dataset
    dev: Bench
    test: Bench
    fingerprints: Mapping[str, str]
    parts: Parts

    @property
    def asks_models(self) -> bool:
        """Whether any stage of this configuration, or one that the space may choose, calls language models."""
        return any(config.asks_models for config in self.shown)

    @property
    def baseline(self) -> Values:
        """The configuration that the command line itself describes: trial 0."""
        return self.seeds[0]

    @property
    def resources(self) -> Resources:
        """What all its pipelines work with."""
        return self.dev.resources

    @property
    def storage_url(self) -> str:
        """The storage's URL, with the study's folder where it stands in it."""
        return str(plain(self.config.storage.url)).replace("{folder}", self.settings.folder.as_posix())

    @property
    def shelf(self) -> str:
        """What studies have in common where equal parameters mean equal work: questions, and what is not searched."""
        return key_of(self.fingerprints["dataset"], self.fingerprints["pipeline"])

    def files(self, study: optuna.Study) -> TrialFiles:
        """What the study's trials leave."""
        return TrialFiles(study, self.settings.folder, self.shares_folder)

    @property
    def shares_folder(self) -> bool:
        """Whether all who share the storage share the study's folder: it lies in there."""
        return "{folder}" in str(plain(self.config.storage.url))


def planned(overrides: Sequence[str], variant: str = "") -> Plan:
    """The plan of a study; raises a RagOptError for the first thing that is wrong."""
    config = composed(overrides)
    check_shape(config)
    check_secrets({str(key): plain(value) for key, value in config.items() if key not in ("dataset", "price")})
    for url in (config.storage.url, config.tracking.get("uri", "")):
        know(str(plain(url)))
    settings = settings_of(config, variant)
    use_threads(settings.threads)
    objective = objective_of(config)
    resources = resources_of(config)
    space = own_values(searched(config, overrides), overrides)
    _check_stopping(settings, objective)
    own = trial_of(config, overrides)
    pipeline = build_pipeline(own, resources)
    shown = {own: pipeline, **check_space(space, own, resources)}
    space, idle = stirring(space, own, resources, objective.deciding, default_values(space, overrides))
    check_search(config, space)
    searching = [f"{name}={value}" for name, value in _named(space)]
    for line in unused(overrides, objective, list(shown.values()), searching):
        say(line)
    seeds = beginnings(config, space, overrides, idle)
    dataset = loaded(config)
    metrics = measurable(objective, dataset, _has_generator(pipeline, space))
    parts = split(dataset, settings.test_share, settings.split_seed)
    # Last, since it makes a folder.
    resources.store.check()
    resources = replace(resources, llm=_budgeted(settings, resources.llm), deepest=deepest(space))
    # Beside pipelines that pay for each question, none is timed in another way than these.
    times = objective.times and not any(each.asks_models for each in shown)
    dev, test = (
        Bench(tuple(overrides), Questions.of(part, settings.batches, settings.seed), metrics, resources, times)
        for part in parts
    )
    return Plan(
        config,
        settings,
        space,
        tuple(shown),
        tuple(seeds),
        objective,
        dataset,
        dev,
        test,
        _prints(config, settings, space, objective, dataset)
        | _precision(config, resources.store)
        | ({"measuring of latency": TIMED_APART} if times else {})
        | {"choices": _choices(space, overrides)},
        _parts(settings, objective, dataset),
    )


def _parts(settings: Settings, objective: Objective, dataset: Dataset) -> Mapping[str, Mapping[str, str]]:
    """What the fingerprints of dataset and objective are made of."""
    return parts_of(
        dataset.fingerprint,
        settings.test_share,
        settings.split_seed,
        objective.fingerprint,
        settings.seed,
        settings.batches,
    )


def _check_stopping(settings: Settings, objective: Objective) -> None:
    """Raise ConfigError where a search is to end early by a regret that is not known."""
    if settings.stopping is not None and len(objective.names) > 1:
        raise ConfigError(
            f"stopping: the regret of several objectives ({', '.join(objective.names)}) is not known; choose "
            "stopping=none, or one objective"
        )


def _budgeted(settings: Settings, llm: LLMClient) -> LLMClient:
    """The way to models within what the study may spend."""
    study = settings.folder.resolve().as_posix()
    return replace(llm, budget=Budget.of(study, llm.replies, settings.budget_tokens, settings.budget_usd))


def check_space(space: SearchSpace, own: TrialConfig, resources: Resources) -> dict[TrialConfig, RagPipeline]:
    """The pipelines of few configurations that together show every choice and every end of every range.

    Raises SearchSpaceError with the words that can't be composed or built.
    """
    pipelines = {}
    for values in space.corners():
        given = words(values)
        try:
            config = compose_trial([*own.words, *given])
            pipelines[config] = build_pipeline(config, resources)
        except RagOptError as error:
            raise SearchSpaceError(
                f"search_space: {error}\n  with {' '.join(given)}\n"
                "  a parameter that exists only with some choices needs `when: {group: choice}` (docs/search-spaces.md)"
            ) from error
    return pipelines


def _has_generator(pipeline: RagPipeline, space: SearchSpace) -> bool:
    return pipeline.has_generator or any(parameter.name == "generator" for parameter in space.parameters)


def _precision(config: DictConfig, store: Store) -> dict[str, str]:
    """What `precision: auto` stands for here: scores of another precision would not compare."""
    encoder = plain(config.embedder).get("encoder")
    automatic = isinstance(encoder, Mapping) and encoder.get("precision") == "auto"
    return {"precision": fast_precision(store)} if automatic else {}


def _named(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Every parameter of names, and each of its choices, as text."""
    for parameter in space.parameters:
        for value in getattr(parameter.distribution, "choices", ()):
            yield parameter.name, str(value)


def _choices(space: SearchSpace, overrides: Sequence[str]) -> str:
    """The content of every stage's file, and every prompt, that the space names: models, prompts, defaults."""
    files = {
        f"{name}={value}": fingerprint(composed([*overrides, f"{name}={value}"]), [name])
        for name, value in _named(space)
        if name in STAGES
    }
    prompts = {value: prompt_of(value) for name, value in _named(space) if name.endswith(".prompt")}
    return key_of(files, prompts)


def _prints(
    config: DictConfig, settings: Settings, space: SearchSpace, objective: Objective, dataset: Dataset
) -> dict[str, str]:
    order = (settings.seed, settings.batches)
    return {
        "dataset": split_print(dataset, settings.test_share, settings.split_seed),
        "search space": space.fingerprint,
        "objective": key_of(objective.fingerprint, order),
        "pipeline": fingerprint(config),
        **({"measuring of ranks": RANKED} if any(each.reads == RANKS for each in objective.metrics) else {}),
    }
