"""The sampler and the pruner of a configuration, seeded trial by trial, and checked before the study is touched."""

from __future__ import annotations

from contextvars import ContextVar
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import optuna
from omegaconf import DictConfig
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, CmaEsSampler
from optuna.study import StudyDirection

from rag_opt.config.trust import build, to_plain
from rag_opt.console.screens import report_line
from rag_opt.console.secrets import hide_secrets, register_password
from rag_opt.errors import ConfigError, RagOptError, SearchSpaceError
from rag_opt.samplers import RagSampler
from rag_opt.samplers.stock import PICKLED, refuse_pickles
from rag_opt.storages.databases import get_sqlite_path
from rag_opt.study.racing import Race, format_pruner_warning

if TYPE_CHECKING:
    from rag_opt.config.search_space import SearchSpace

PER_TRIAL = "per_trial"


def check_search(config: DictConfig, space: SearchSpace) -> None:
    """Raise ConfigError when the sampler or the pruner can't be built, or can't search this space."""
    sampler = build_sampler(config, 0)
    # CMA-ES unpickles its state from the database: who can write to study.db could have a command run here.
    if isinstance(sampler, CmaEsSampler):
        raise ConfigError(PICKLED)
    pruner, _ = build_pruner(config)
    for key, found, kind in (("sampler", sampler, BaseSampler), ("pruner", pruner, BasePruner)):
        if not isinstance(found, kind):
            raise ConfigError(f"{key}._target_={config[key]._target_}: it is no {key} of Optuna's")
    if line := format_pruner_warning(pruner, to_plain(config.objective.metrics)):
        report_line(line)
    if isinstance(sampler, RagSampler):
        _check_earlier_studies(config, sampler)
    # 1 for choices, which have no step and are finite; None is the step of a continuous range.
    endless = [p.name for p in space.parameters if getattr(p.distribution, "step", 1) is None]
    if isinstance(sampler, BruteForceSampler) and endless:
        raise SearchSpaceError(
            f"sampler=brute_force can't try every value of {', '.join(endless)}: give them a range(start, stop, step) "
            "or a choice(…), or choose another sampler"
        )
    _check_sampling(config, sampler, space)


def _check_sampling(config: DictConfig, sampler: BaseSampler, space: SearchSpace) -> None:
    """Raise ConfigError where the sampler can't draw a trial: its options may be no sampler's business until then."""
    directions = [StudyDirection.MAXIMIZE] * len(to_plain(config.objective.metrics))
    # In memory: the plan is checked before anything of the real study is made.
    study = optuna.create_study(directions=directions, sampler=sampler)
    try:
        space.suggest(study.ask())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampler: {type(sampler).__name__} draws no trial: {error}") from error


def _check_earlier_studies(config: DictConfig, sampler: RagSampler) -> None:
    """Raise ConfigError where a study that the sampler is to learn from can't be read."""
    for each in to_plain(config.sampler).get("earlier", ()):
        # Before the URL can fail: what is raised below quotes it, and only known passwords are hidden.
        register_password(str(each["storage"]))
        try:
            path = get_sqlite_path(str(each["storage"]))
        except RagOptError as error:
            raise ConfigError(
                f"sampler.earlier: storage={hide_secrets(str(each['storage']))}: the URL of a database is expected, "
                "such as "
                "sqlite:///studies/a/study.db"
            ) from error
        # SQLite would make an empty database under a misspelt name instead of failing.
        if path is not None and not path.is_file():
            raise ConfigError(f"sampler.earlier: there is no database {path}")
    try:
        found = [len(study.directions) for study in sampler.get_earlier()]
    except Exception as error:
        # Optuna, SQLAlchemy and the database's driver each have their own.
        # The first line alone: SQLAlchemy's go on with the statement, its parameters and a link.
        reason = (hide_secrets(str(error)).splitlines() or [""])[0]
        raise ConfigError(
            f"sampler.earlier: a study can't be read ({type(error).__name__}: {reason}); is its name right?"
        ) from error
    own = len(to_plain(config.objective.metrics))
    if other := next((count for count in found if count != own), 0):
        raise ConfigError(f"sampler.earlier: a study has {other} objectives, this one has {own}")


def build_pruner(config: DictConfig) -> tuple[BasePruner, Race | None]:
    """What stops trials early: a pruner of Optuna's, or a race, beside which Optuna's stops none."""
    # Optuna hands a pruner one value a step, and none with several objectives; a race needs them question by question.
    found = build(config.pruner, to_plain(config.trusted_modules))
    return (NopPruner(), found) if isinstance(found, Race) else (found, None)


GIVEN: ContextVar[BaseSampler | None] = ContextVar("GIVEN", default=None)
"""The sampler that was given in Python, in place of the configuration's; it seeds itself."""


def get_sampler_tag() -> dict[str, str]:
    """The class of the sampler that was given in Python, as the tag "sampler"; {} where the configuration has it."""
    kind = type(GIVEN.get())
    return {} if kind is type(None) else {"sampler": f"{kind.__module__}.{kind.__qualname__}"}


def build_sampler(config: DictConfig, place: int) -> Any:
    """A fresh sampler for the trial of this place, so seeded that a resumed study draws what an uninterrupted one does.

    `seed: per_trial` in its file stands for a seed that is derived from the study's and the place.
    """
    if (given := GIVEN.get()) is not None:
        return given
    # Fresh each time, by place: a sampler with the study's own seed would repeat its first points on every resume.
    node = _resolve_seed(to_plain(config.sampler), derive_seed(config, place))
    # Whatever its type says: a sampler may make a CMA-ES for itself.
    refuse_pickles()
    return build(node, to_plain(config.trusted_modules))


def derive_seed(config: DictConfig, place: int) -> int:
    """The seed for the trial of this place."""
    # Not hash(), which differs from process to process; four bytes, since NumPy's RandomState takes 32 bits.
    return int.from_bytes(sha256(f"{config.seed}/{place}".encode()).digest()[:4], "big")


def _resolve_seed(node: Any, seed: int) -> Any:
    if isinstance(node, dict):
        return {key: _resolve_seed(value, seed) for key, value in node.items()}
    return seed if node == PER_TRIAL else node
