"""Samplers that are not in Optuna itself, and the one of Optuna's that is refused."""

from __future__ import annotations

from typing import Any

from optuna.samplers import BruteForceSampler, CmaEsSampler
from optuna.trial import FrozenTrial

from rag_opt.errors import ConfigError
from rag_opt.samplers.observations import INTERRUPTED

PICKLED = (
    "sampler: CMA-ES keeps its state in the study's database as a pickle, and reading a pickle runs what is in it; "
    "choose another one, such as sampler=gp or sampler=tpe"
)


def refuse_pickles() -> None:
    """From now on no CMA-ES of this process, not one inside another sampler either, reads a state from a database."""

    # Optuna cuts the pickle in parts, under keys that begin alike. Without any the result is None, as it is in Optuna:
    # the sampler then starts anew.
    def refused(sampler: CmaEsSampler, trials: list[Any]) -> None:
        if any(key.startswith(sampler._attr_key_optimizer) for trial in trials for key in trial.system_attrs):
            raise ConfigError(PICKLED)

    # On the class: one that another sampler makes for itself is out of reach.
    CmaEsSampler._restore_optimizer = refused  # type: ignore[method-assign, assignment]


class BruteForce(BruteForceSampler):
    """Every combination once, also those over which a process was ended: to Optuna's own these have been tried."""

    @staticmethod
    def _populate_tree(tree: Any, trials: list[FrozenTrial], params: dict[str, Any]) -> None:
        measured = [trial for trial in trials if INTERRUPTED not in trial.user_attrs]
        BruteForceSampler._populate_tree(tree, measured, params)


def from_hub(package: str, name: str, registry_root: str | None = None, **parameters: Any) -> Any:
    """The sampler (or pruner) `name` of an OptunaHub package, such as "samplers/auto_sampler".

    `registry_root` names a local copy of the registry, for work without a network. Raises ConfigError when optunahub is
    not installed or the package can't be loaded. Loading runs the package's code: choose it as you choose a dependency.
    """
    try:
        import optunahub
    except ImportError as error:
        raise ConfigError("sampler: optunahub is not installed; pip install 'rag-opt-studies[optunahub]'") from error
    try:
        if registry_root is None:
            module = optunahub.load_module(package)
        else:
            module = optunahub.load_local_module(package, registry_root=registry_root)
    except Exception as error:  # the network, the registry, or the package's own code
        raise ConfigError(f"sampler: OptunaHub package '{package}' can't be loaded: {error}") from error
    kind = getattr(module, name, None)
    if kind is None:
        raise ConfigError(f"sampler: OptunaHub package '{package}' has no '{name}'")
    return kind(**parameters)
