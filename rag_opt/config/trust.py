"""Building what configurations name with `_target_`: only public classes from modules that the configuration trusts."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial, reduce
from importlib.util import find_spec
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rag_opt.config.interpolations import limit_interpolations
from rag_opt.errors import ConfigError, RagOptError

TRUSTED = ("rag_opt", "optuna", "haystack", "haystack_integrations")
"""Top-level modules whose classes a `_target_` may name; `trusted_modules` adds the user's own."""

FACTORIES = re.compile(r"rag_opt\.datasets\.\w+\.load|rag_opt\.samplers\.stock\.from_hub")
"""The functions, not classes, that may be named."""

SERVING = {
    "rag_opt": ("components", "datasets", "samplers", "study.racing", "cli.multirun", "workers.launchers"),
    "optuna": ("samplers", "pruners", "distributions"),
    "haystack": (
        *("components.embedders", "components.evaluators", "components.extractors", "components.generators"),
        *("components.joiners", "components.preprocessors", "components.query", "components.rankers"),
        *("components.retrievers", "components.samplers", "components.builders", "dataclasses", "document_stores"),
        "utils",
    ),
}
"""Below the trusted modules: where classes live that a study needs.

Others open databases (optuna.storages), run templates as code (haystack's routers and converters), fetch addresses,
read files, call tools, with arguments that the configuration chooses.
"""

CONSENT = {"rag_opt.samplers.stock.from_hub": "optunahub"}
"""What runs code that the configuration does not show: the module that `trusted_modules` must name for it.

An OptunaHub package is code that is downloaded.
"""

REMOTE_CODE = "trust_remote_code"
"""A parameter of many models: to run the code that lies beside their weights."""

KEYWORDS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""What Hydra's `instantiate` reads; plain containers need no converting."""


SECRET = re.compile(
    r"\b(sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,}|xox[abp]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|gsk_\w{16,}|r8_\w{16,}|tvly-[\w-]{10,}"
    r"|BSA[\w-]{20,}|Bearer\s+[\w.-]{16,})"
)
"""What keys of well-known services look like."""


FIELD = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|authorization|credentials?)$")
"""The last part of a configuration's key under which a secret would stand."""

HARMLESS = re.compile(r"|null|none|true|false|[\d.]{1,7}|\$\{.*\}", re.IGNORECASE | re.DOTALL)
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""Names of environment variables as they are usual; keys have small letters."""

RESOLVING = "ConfigError raised while resolving interpolation: "


def check_secret(where: str, value: Any) -> None:
    """Raise ConfigError where a text looks like a key itself; it is not repeated."""
    if isinstance(value, str) and SECRET.search(value):
        raise _build_secret_error(where)


def check_field(where: str, value: str) -> None:
    """Raise ConfigError where a key that is named like a secret's (llm.api_key) has a text that names no variable."""
    if FIELD.search(where.rpartition(".")[2]) and not (HARMLESS.fullmatch(value) or is_variable_name(value)):
        raise _build_secret_error(where)


def is_variable_name(text: str) -> bool:
    """Whether a text is the name of an environment variable, not a key in capitals and digits."""
    return bool(VARIABLE.fullmatch(text)) and ("_" in text or text.isalpha() or text in os.environ)


def _build_secret_error(where: str) -> ConfigError:
    return ConfigError(
        f"{where} holds what looks like a secret key, and a configuration is written to files and databases: put "
        "it into an environment variable and name that, such as llm.key=OPENAI_API_KEY"
    )


def check_secrets(node: Any, where: str = "") -> None:
    """Raise ConfigError at the first text in plain containers that looks like a key itself."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            check_secrets(value, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            check_secrets(value, f"{where}[{place}]")
    elif isinstance(node, str):
        check_secret(where, node)
        check_field(where, node)


def to_plain(config: Any) -> Any:
    """The configuration as plain containers, interpolations resolved; raises ConfigError where one can't be."""
    if not OmegaConf.is_config(config):
        return config
    try:
        with limit_interpolations():
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_unresolved(error)) from error


def explain_unresolved(error: OmegaConfBaseException) -> str:
    """What is wrong with a value, after the key that has it."""
    said = str(error).splitlines()[0]
    if said.startswith(RESOLVING):
        # What a resolver of ours has refused says itself what is wrong.
        return said.removeprefix(RESOLVING)
    key = error.full_key or ""
    return f"{said if key in said else f'{key}: {said}'}; give it a value, or name a key that exists"


def build(config: Any, trusted: Iterable[str] = (), **given: Any) -> Any:
    """The object that a configuration with `_target_` describes, nested ones included.

    Raises ConfigError before anything is imported when a `_target_` is not below a trusted module, and when what it
    names turns out to live elsewhere.
    """
    node = {**to_plain(config), **given}
    check_buildable(node, trusted)
    return _instantiate(node)


def check_buildable(node: Any, trusted: Iterable[str] = ()) -> None:
    """Raise ConfigError unless everything that these plain containers name may be built; all of it is imported."""
    roots = (*TRUSTED, *trusted)
    check_targets(node, roots)
    check_remote_code(node)
    for target in iterate_targets(node):
        if any(part.startswith("_") for part in target.split(".")):
            raise ConfigError(f"_target_: {target} is private to its module; name a public class")
        _check_home(target, roots)


def check_hydra_targets(node: Any, trusted: Iterable[str]) -> None:
    """Raise ConfigError unless every `_target_` in what Hydra itself builds is a class of a trusted module.

    Hydra's own builder follows any dotted path, such as hydra.utils.os.system.
    """
    roots = tuple(trusted)
    check_targets(node, roots)
    for target in iterate_targets(node):
        module, found, names = _import_module(target)
        kind = reduce(lambda each, name: getattr(each, name, None), names, found)
        if not isinstance(kind, type):
            raise ConfigError(f"_target_: {target} is no class of {module}; Hydra may build classes only")
        _check_home(target, roots)


def check_remote_code(node: Any) -> None:
    """Raise ConfigError where plain containers ask a model to run the code beside it, or hide what they ask."""
    if isinstance(node, list):
        for value in node:
            check_remote_code(value)
    if not isinstance(node, Mapping):
        return
    if node.get(REMOTE_CODE):
        raise ConfigError(f"{REMOTE_CODE}={node[REMOTE_CODE]}: it runs code that comes with a model; leave it out")
    if node.get("_args_") and str(node.get("_target_")).partition(".")[0] in TRUSTED:
        raise ConfigError(
            f"_args_ of {node['_target_']}: name each parameter, as key: value, so that it can be checked"
        )
    for value in node.values():
        check_remote_code(value)


def _instantiate(node: Any) -> Any:
    """The objects of plain containers, innermost first: Hydra's `_target_`, `_args_`, `_partial_`, `_recursive_`."""
    if isinstance(node, list):
        return [_instantiate(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner = node.get("_recursive_", True)
    given = {key: _instantiate(value) if inner else value for key, value in node.items() if key not in KEYWORDS}
    if "_target_" not in node:
        return given
    arguments = node.get("_args_", [])
    target = str(node["_target_"])
    kind = import_target(target)
    try:
        arguments = _instantiate(arguments) if inner else arguments
        return partial(kind, *arguments, **given) if node.get("_partial_") else kind(*arguments, **given)
    except RagOptError:
        raise
    except Exception as error:
        # A constructor may refuse its parameters in any way.
        raise ConfigError(f"{target.rpartition('.')[2]}: {error}") from error


def check_targets(node: Any, roots: Iterable[str]) -> None:
    """Raise ConfigError at a `_target_` that is not below one of these modules; nothing is imported."""
    trusted = tuple(roots)
    for target in iterate_targets(node):
        if target.partition(".")[0] not in trusted:
            raise ConfigError(
                f"_target_: {target} is not below a trusted module ({', '.join(trusted)}); "
                f"if it is yours, add trusted_modules=[{target.partition('.')[0]}]"
            )


def iterate_targets(node: Any) -> Iterator[str]:
    """Every `_target_` in plain containers."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from iterate_targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from iterate_targets(value)


def _check_home(target: str, roots: tuple[str, ...]) -> None:
    """Raise ConfigError when there is no such class, or when a trusted module only imported it from elsewhere."""
    module, found, names = _import_module(target)
    for name in names:
        found = getattr(found, name, None)
    if not callable(found):
        raise ConfigError(f"_target_: {target} does not exist: {module} has no '{'.'.join(names)}'")
    home = str(getattr(found, "__module__", None) or "")
    if home.partition(".")[0] not in roots:
        raise ConfigError(f"_target_: {target} is {home}.{names[-1]}, which is not below a trusted module")
    _check_allowed(target, home, getattr(found, "__qualname__", names[-1]), roots)
    # A function could do anything with its arguments; of ours only these are made to be named.
    if (
        not isinstance(found, type)
        and home.partition(".")[0] in TRUSTED
        and not FACTORIES.fullmatch(f"{home}.{names[-1]}")
    ):
        raise ConfigError(f"_target_: {target} is a function; name a class")


def _check_allowed(target: str, home: str, name: str, roots: tuple[str, ...]) -> None:
    """Raise ConfigError for a class of a trusted module that no study needs, or that needs more trust."""
    root, _, below = home.partition(".")
    if root in SERVING and not any(f"{below}.".startswith(f"{part}.") for part in SERVING[root]):
        raise ConfigError(
            f"_target_: {target} is none of what a study is made of (below {root}: {', '.join(SERVING[root])})"
        )
    for given, module in CONSENT.items():
        known = given.rpartition(".")
        if name != known[2] or not f"{home}.".startswith(f"{known[0]}."):
            continue
        if module not in roots:
            raise ConfigError(
                f"_target_: {target} runs code that the configuration does not show; if you trust where it comes from, "
                f"add trusted_modules=[{module}]"
            )
        if find_spec(module) is None:
            raise ConfigError(f"_target_: {target} needs the package '{module}', which is not installed")


def import_target(target: str) -> Any:
    """The class or function of this dotted name."""
    module, found, names = _import_module(target)
    try:
        return reduce(getattr, names, found)
    except AttributeError as error:
        # Haystack's integrations share one namespace: it is there when any of them is.
        missing = f"_target_: {target} does not exist: {module} has no '{'.'.join(names)}'"
        raise ConfigError(_name_integration(target) or missing) from error


def _name_integration(target: str) -> str | None:
    """What to say of a class of an integration that is not installed; None where it is of none."""
    parts = target.split(".")
    at = 3 if parts[1:2] == ["components"] else 2
    if parts[0] != "haystack_integrations" or len(parts) <= at:
        return None
    return f"_target_: {target} is not installed; its package is probably {parts[at].replace('_', '-')}-haystack"


def _import_module(target: str) -> tuple[str, Any, list[str]]:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            return name, importlib.import_module(name), parts[cut:]
        except ModuleNotFoundError as error:
            if error.name is not None and not name.startswith(error.name):
                raise ConfigError(
                    f"_target_: {target} needs the package '{error.name}', which is not installed"
                ) from error
    raise ConfigError(_name_integration(target) or f"_target_: {target}: there is no module '{parts[0]}'")
