"""Samplers that are not in Optuna itself."""

from __future__ import annotations

from typing import Any

from rag_opt.errors import ConfigError


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
