"""A command line → everything a study needs, checked before the study is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import optuna
from omegaconf import DictConfig

from rag_opt.components.models.speed import get_fast_precision
from rag_opt.config.compose import compose_config, load_prompt
from rag_opt.config.enumeration import get_max_depth
from rag_opt.config.overrides import format_overrides
from rag_opt.config.schema import check_shape
from rag_opt.config.settings import Settings, parse_settings
from rag_opt.config.stages import STAGES, get_stages
from rag_opt.config.trial import TrialConfig, build_trial_config, compose_trial, compute_fingerprint
from rag_opt.config.trust import check_secrets, to_plain
from rag_opt.console.screens import report_lines
from rag_opt.console.secrets import register_password
from rag_opt.datasets.splits import compute_split_key
from rag_opt.errors import ConfigError, RagOptError, SearchSpaceError
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.evaluator import Evaluator, build_resources, choose_method, divide_dataset, load_dataset
from rag_opt.evaluation.judging import read_peoples_grades
from rag_opt.evaluation.objective import Objective, build_objective, select_measurable
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.evaluation.unused import find_unused
from rag_opt.llm.budget import Budget
from rag_opt.metrics.catalogue import RANKS
from rag_opt.records.keys import compute_key
from rag_opt.storages.drift import Parts, build_parts
from rag_opt.storages.trial_files import TrialFiles
from rag_opt.study.idle import drop_idle_parameters
from rag_opt.study.sampling import check_search
from rag_opt.study.seeds import Values, add_default_values, build_search_space, build_seeds, get_default_values
from rag_opt.system.environment import use_threads

if TYPE_CHECKING:
    from rag_opt.cache.store import Store
    from rag_opt.components.resources import Resources
    from rag_opt.config.search_space import SearchSpace
    from rag_opt.judge.grades import Grades
    from rag_opt.llm.client import LLMClient
    from rag_opt.records.documents import Dataset

TIMED_APART = "one question at a time, apart from the search"
"""How latency is measured where it decides; before, by what stages took when the search first ran them."""

RANKED = "whatever is handed on"
"""How rankings are measured; before, what was handed on was all that was measured."""


@dataclass(frozen=True)
class Plan:
    """A study that can run: nothing in it depends on whether it ran before.

    `shown` are the configuration that the command line describes and others that together show every choice, `grades`
    what people gave answers that a judge has graded.
    """

    config: DictConfig
    settings: Settings
    space: SearchSpace
    shown: tuple[TrialConfig, ...]
    seeds: tuple[Values, ...]
    objective: Objective
    dataset: Dataset
    dev: Evaluator
    test: Evaluator
    fingerprints: Mapping[str, str]
    parts: Parts
    grades: Grades

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
        return str(to_plain(self.config.storage.url)).replace("{folder}", self.settings.folder.as_posix())

    @property
    def timings_key(self) -> str:
        """What studies have in common where equal parameters mean equal work: questions, and what is not searched."""
        return compute_key(self.fingerprints["dataset"], self.fingerprints["pipeline"])

    def get_files(self, study: optuna.Study) -> TrialFiles:
        """What the study's trials leave."""
        return TrialFiles(study, self.settings.folder, self.shares_folder)

    @property
    def shares_folder(self) -> bool:
        """Whether all who share the storage share the study's folder: it lies in there."""
        return "{folder}" in str(to_plain(self.config.storage.url))


def build_plan(overrides: Sequence[str], variant: str = "") -> Plan:
    """The plan of a study; raises a RagOptError for the first thing that is wrong."""
    config = compose_config(overrides)
    check_shape(config)
    _check_secrets(config)
    settings = parse_settings(config, variant)
    use_threads(settings.threads)
    objective = build_objective(config)
    resources = build_resources(config)
    space = add_default_values(build_search_space(config, overrides), overrides)
    _check_objectives(settings, objective)
    own = build_trial_config(config, overrides)
    pipeline = build_pipeline(own, resources)
    # The study's own first: preflight takes it for the configuration of the command line.
    shown = {own: pipeline, **check_space(space, own, resources)}
    # After `check_space`: what is idle is found by building pipelines, which must be known to be possible.
    space, idle = drop_idle_parameters(space, own, resources, objective.deciding, get_default_values(space, overrides))
    check_search(config, space)
    searching = [f"{name}={value}" for name, value in _iterate_choices(space)]
    report_lines(find_unused(overrides, objective, list(shown.values()), searching))
    seeds = build_seeds(config, space, overrides, idle)
    dataset = load_dataset(config)
    settings = choose_method(dataset, config, settings, objective)
    metrics = select_measurable(objective, dataset, _has_generator(pipeline, space))
    report_lines(_find_unused_cut(overrides, settings, dataset))
    parts = divide_dataset(dataset, config, settings)
    # Last, since it makes a folder.
    resources.store.check()
    resources = replace(resources, llm=_add_budget(settings, resources.llm), deepest=get_max_depth(space))
    # Beside pipelines that pay for each question, none is timed in another way than these.
    times = objective.times and not any(each.asks_models for each in shown)
    questions = (Questions.from_dataset(part, settings.batches, settings.seed) for part in parts)
    dev, test = (Evaluator(tuple(overrides), each, metrics, resources, times) for each in questions)
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
        _compute_fingerprints(config, settings, space, objective, dataset)
        | _resolve_precision(config, resources.store)
        | ({"measuring of latency": TIMED_APART} if times else {})
        | {"choices": _hash_choices(space, overrides)},
        _build_parts(settings, objective, dataset),
        read_peoples_grades(config, settings),
    )


def _check_secrets(config: DictConfig) -> None:
    """Raise ConfigError where a configuration holds a key; passwords in addresses are hidden from now on."""
    check_secrets({str(key): to_plain(value) for key, value in config.items() if key not in ("dataset", "price")})
    # As early as this: any refusal below may quote such an address.
    for url in (config.storage.url, config.tracking.get("uri", "")):
        register_password(str(to_plain(url)))


def _build_parts(settings: Settings, objective: Objective, dataset: Dataset) -> Mapping[str, Mapping[str, str]]:
    """What the fingerprints of dataset and objective are made of."""
    # Compared by nobody: they say which part of a fingerprint has changed.
    return build_parts(
        dataset.fingerprint,
        settings.test_share,
        settings.split_seed,
        objective.fingerprint,
        settings.seed,
        settings.batches,
        (*settings.own_splits, settings.method, settings.groups),
    )


def _find_unused_cut(overrides: Sequence[str], settings: Settings, dataset: Dataset) -> Iterator[str]:
    """A line for each typed word about cutting the questions at random, where they are not."""
    if not dataset.confirming and not settings.crossfits:
        return
    why = "all questions are searched" if settings.crossfits else "the data set's own splits are kept"
    for word in overrides:
        if word.partition("=")[0] in ("dataset.test_share", "dataset.split_seed"):
            yield f"{word} does nothing here: {why}"


def _check_objectives(settings: Settings, objective: Objective) -> None:
    """Raise ConfigError where what is asked for is known for one objective alone."""
    if settings.stopping is not None and len(objective.names) > 1:
        raise ConfigError(
            f"stopping: the regret of several objectives ({', '.join(objective.names)}) is not known; choose "
            "stopping=none, or one objective"
        )
    if settings.crossfits and len(objective.names) > 1:
        raise ConfigError(
            f"confirmation.method=crossfit: the front of several objectives ({', '.join(objective.names)}) differs "
            "from fold to fold; choose confirmation.method=split, or one objective"
        )


def _add_budget(settings: Settings, llm: LLMClient) -> LLMClient:
    """The way to models within what the study may spend."""
    # Resolved: however the folder is written, its payments are in one ledger.
    study = settings.folder.resolve().as_posix()
    return replace(llm, budget=Budget.from_limits(study, llm.replies, settings.budget_tokens, settings.budget_usd))


def check_space(space: SearchSpace, own: TrialConfig, resources: Resources) -> dict[TrialConfig, RagPipeline]:
    """The pipelines of few configurations that together show every choice and every end of every range.

    Raises SearchSpaceError with the words that can't be composed or built.
    """
    pipelines = {}
    for values in space.iterate_corners():
        given = format_overrides(values)
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


def _resolve_precision(config: DictConfig, store: Store) -> dict[str, str]:
    """What `precision: auto` stands for here: scores of another precision would not compare."""
    encoder = to_plain(config.embedder).get("encoder") if "embedder" in get_stages(config) else None
    automatic = isinstance(encoder, Mapping) and encoder.get("precision") == "auto"
    return {"precision": get_fast_precision(store)} if automatic else {}


def _iterate_choices(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Every parameter of names, and each of its choices, as text."""
    for parameter in space.parameters:
        for value in getattr(parameter.distribution, "choices", ()):
            yield parameter.name, str(value)


def _hash_choices(space: SearchSpace, overrides: Sequence[str]) -> str:
    """The content of every stage's file, and every prompt, that the space names: models, prompts, defaults."""
    # The space's own fingerprint knows a choice by its name, not by what its file says.
    files = {
        f"{name}={value}": compute_fingerprint(compose_config([*overrides, f"{name}={value}"]), [name])
        for name, value in _iterate_choices(space)
        if name in STAGES
    }
    prompts = {value: load_prompt(value) for name, value in _iterate_choices(space) if name.endswith(".prompt")}
    return compute_key(files, prompts)


def _compute_fingerprints(
    config: DictConfig, settings: Settings, space: SearchSpace, objective: Objective, dataset: Dataset
) -> dict[str, str]:
    # They fix the order of the questions, and with it what a trial that is stopped early was asked.
    order = (settings.seed, settings.batches)
    return {
        "dataset": compute_split_key(dataset, settings.test_share, settings.split_seed, crossfits=settings.crossfits),
        "search space": space.fingerprint,
        "objective": compute_key(objective.fingerprint, order),
        "pipeline": compute_fingerprint(config),
        # Only where ranks are read: other studies of earlier versions still compare and must not count as drifted.
        **({"measuring of ranks": RANKED} if any(each.reads == RANKS for each in objective.metrics) else {}),
    }
