"""A command line → everything a study needs, checked before the study is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, CmaEsSampler
from optuna.study import StudyDirection

from rag_opt.cache.store import Store
from rag_opt.components.models.speed import fast_precision
from rag_opt.components.resources import Resources
from rag_opt.config.compose import STAGES, check_shape, choices, composed, fingerprint, parse, prompt_of
from rag_opt.config.configurations import deepest, including, nearest
from rag_opt.config.search_space import SearchSpace, Value, words
from rag_opt.config.settings import Settings, settings_of
from rag_opt.config.sweep_grammar import parsed
from rag_opt.config.trial import TrialConfig, compose_trial, trial_of
from rag_opt.config.trust import build, check_secrets, plain
from rag_opt.console.progress import say
from rag_opt.console.secrets import hide, know
from rag_opt.datasets.checks import split, split_print
from rag_opt.errors import ConfigError, RagOptError, SearchSpaceError
from rag_opt.evaluation.bench import Bench, loaded, resources_of
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.objective import Objective, measurable, objective_of
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.evaluation.unused import unused
from rag_opt.llm.budget import Budget
from rag_opt.llm.client import LLMClient
from rag_opt.metrics.catalogue import RANKS
from rag_opt.records.documents import Dataset
from rag_opt.records.keys import key_of
from rag_opt.samplers import RagSampler
from rag_opt.samplers.stock import PICKLED, refuse_pickles
from rag_opt.storages.databases import sqlite_path
from rag_opt.storages.drift import Parts, parts_of
from rag_opt.storages.trial_files import TrialFiles
from rag_opt.study.idle import stirring
from rag_opt.study.racing import Race, idle_line
from rag_opt.system.environment import use_threads

Values = dict[str, Value]
PER_TRIAL = "per_trial"

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


def check_search(config: DictConfig, space: SearchSpace) -> None:
    """Raise ConfigError when the sampler or the pruner can't be built, or can't search this space."""
    sampler = sampler_of(config, 0)
    if isinstance(sampler, CmaEsSampler):
        raise ConfigError(PICKLED)
    pruner, _ = pruner_of(config)
    for key, found, kind in (("sampler", sampler, BaseSampler), ("pruner", pruner, BasePruner)):
        if not isinstance(found, kind):
            raise ConfigError(f"{key}._target_={config[key]._target_}: it is no {key} of Optuna's")
    if line := idle_line(pruner, plain(config.objective.metrics)):
        say(line)
    if isinstance(sampler, RagSampler):
        _check_earlier(config, sampler)
    endless = [p.name for p in space.parameters if getattr(p.distribution, "step", 1) is None]
    if isinstance(sampler, BruteForceSampler) and endless:
        raise SearchSpaceError(
            f"sampler=brute_force can't try every value of {', '.join(endless)}: give them a range(start, stop, step) "
            "or a choice(…), or choose another sampler"
        )
    _check_draw(config, sampler, space)


def _check_draw(config: DictConfig, sampler: BaseSampler, space: SearchSpace) -> None:
    """Raise ConfigError where the sampler can't draw a trial: its options may be no sampler's business until then."""
    directions = [StudyDirection.MAXIMIZE] * len(plain(config.objective.metrics))
    study = optuna.create_study(directions=directions, sampler=sampler)
    try:
        space.suggest(study.ask())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampler: {type(sampler).__name__} draws no trial: {error}") from error


def _check_earlier(config: DictConfig, sampler: RagSampler) -> None:
    """Raise ConfigError where a study that the sampler is to learn from can't be read."""
    for each in plain(config.sampler).get("earlier", ()):
        know(str(each["storage"]))
        try:
            path = sqlite_path(str(each["storage"]))
        except RagOptError as error:
            raise ConfigError(
                f"sampler.earlier: storage={hide(str(each['storage']))}: the URL of a database is expected, such as "
                "sqlite:///studies/a/study.db"
            ) from error
        if path is not None and not path.is_file():
            raise ConfigError(f"sampler.earlier: there is no database {path}")
    try:
        found = [len(study.directions) for study in sampler.foreign()]
    except Exception as error:
        # Optuna, SQLAlchemy and the database's driver each have their own.
        reason = (hide(str(error)).splitlines() or [""])[0]
        raise ConfigError(
            f"sampler.earlier: a study can't be read ({type(error).__name__}: {reason}); is its name right?"
        ) from error
    own = len(plain(config.objective.metrics))
    if other := next((count for count in found if count != own), 0):
        raise ConfigError(f"sampler.earlier: a study has {other} objectives, this one has {own}")


def pruner_of(config: DictConfig) -> tuple[BasePruner, Race | None]:
    """What stops trials early: a pruner of Optuna's, or a race, beside which Optuna's stops none."""
    found = build(config.pruner, plain(config.trusted_modules))
    return (NopPruner(), found) if isinstance(found, Race) else (found, None)


def sampler_of(config: DictConfig, place: int) -> Any:
    """A fresh sampler for the trial of this place, so seeded that a resumed study draws what an uninterrupted one does.

    `seed: per_trial` in its file stands for a seed that is derived from the study's and the place.
    """
    node = _seeded(plain(config.sampler), seed_of(config, place))
    refuse_pickles()
    return build(node, plain(config.trusted_modules))


def seed_of(config: DictConfig, place: int) -> int:
    """The seed for the trial of this place."""
    return int.from_bytes(sha256(f"{config.seed}/{place}".encode()).digest()[:4], "big")


def _seeded(node: Any, seed: int) -> Any:
    if isinstance(node, dict):
        return {key: _seeded(value, seed) for key, value in node.items()}
    return seed if node == PER_TRIAL else node


def searched(config: DictConfig, overrides: Sequence[str]) -> SearchSpace:
    """The space less what the command line sets."""
    whole = parsed(plain(config.search_space))
    known = {p.name for p in whole.parameters}
    pinned = [o.key_or_group for o in parse(overrides) if o.key_or_group in known]
    _check_pinned(whole, pinned, choices(overrides))
    standing = default_values(whole, overrides)
    space = whole.without(pinned, {name: standing[name] for name in pinned if name in standing})
    if not space.parameters:
        raise SearchSpaceError(
            "search_space: the command line sets every parameter; leave one of them out to search it"
        )
    if pinned:
        say(f"set on the command line, so not searched: {', '.join(pinned)}")
    return space


def own_values(space: SearchSpace, overrides: Sequence[str]) -> SearchSpace:
    """The space with the numbers that the configuration itself has among its choices; what was added is said."""
    found, told = including(space, default_values(space, overrides))
    for line in told:
        say(line)
    return found


def _check_pinned(space: SearchSpace, pinned: Sequence[str], chosen: Mapping[str, str]) -> None:
    """Raise SearchSpaceError for a key that is set while a group that it depends on is still searched."""
    for parameter in space.parameters:
        for parent, values in parameter.when.items() if parameter.name in pinned else ():
            if parent in chosen and parent not in pinned:
                raise SearchSpaceError(
                    f"{parameter.name} is set, but {parent} is searched and {parameter.name} exists only with "
                    f"{parent}={' or '.join(map(str, values))}: set {parent}={values[0]} too, or search both"
                )


def beginnings(
    config: DictConfig, space: SearchSpace, overrides: Sequence[str], idle: Sequence[str] = ()
) -> list[Values]:
    """The configurations to begin with: the baseline, then those of `seeds` that the space can express.

    What a seed says of an `idle` parameter, which is not searched, is left out.
    """
    standing, moved = nearest(space, default_values(space, overrides))
    baseline = space.active(standing)
    if wrong := space.outside(baseline):
        raise SearchSpaceError(
            f"search_space: the configuration's own {wrong.name}={standing.get(wrong.name)} is not in {wrong.text}; "
            "trial 0 measures it, so add it to the space, make another one the configuration's own (an experiment's "
            f"file, --config-dir), or set {wrong.name}=<a value> to leave it out of the search"
        )
    for line in moved:
        say(line)
    return _distinct([baseline, *_seeds(config, space, overrides, idle)])


def default_values(space: SearchSpace, overrides: Sequence[str]) -> Values:
    """The value that a composed configuration has for each parameter of the space that exists in it."""
    config, chosen = composed(overrides), choices(overrides)
    values: Values = {}
    for parameter in space.parameters:
        if parameter.name in chosen:
            values[parameter.name] = chosen[parameter.name]
        elif _has(config, parameter.name):
            values[parameter.name] = OmegaConf.select(config, parameter.name)
    return values


def _has(config: DictConfig, key: str) -> bool:
    # A value may be null, which OmegaConf.select can't tell from a key that is not there.
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and last in node


def _seeds(config: DictConfig, space: SearchSpace, overrides: Sequence[str], idle: Sequence[str]) -> list[Values]:
    found = []
    for row in plain(config.seeds):
        if not isinstance(row, list) or not all(isinstance(word, str) for word in row):
            raise ConfigError(f"seeds: each is a list of key=value, not {row!r}")
        # What the command line sets is no parameter any more, so such a seed is skipped too.
        if {override.key_or_group for override in parse(row)} <= {*idle, *(p.name for p in space.parameters)}:
            values = space.active(nearest(space, default_values(space, [*overrides, *row]))[0])
            if space.outside(values) is None:
                found.append(values)
    return found


def _distinct(rows: list[Values]) -> list[Values]:
    return [row for place, row in enumerate(rows) if row not in rows[:place]]


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
                "  a parameter that exists only with some choices needs `when: {group: choice}` (README, Search space)"
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
