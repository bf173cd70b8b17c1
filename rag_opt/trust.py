"""Building what configurations name with `_target_`: only public classes from modules that the configuration trusts."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial, reduce
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rag_opt.errors import ConfigError, RagOptError

TRUSTED = ("rag_opt", "optuna", "haystack", "haystack_integrations")
"""Top-level modules whose classes a `_target_` may name; `trusted_modules` adds the user's own."""

FACTORIES = ("rag_opt.datasets.", "rag_opt.samplers")
"""Where functions, not only classes, may be named."""

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
        raise _secret(where)


def check_field(where: str, value: str) -> None:
    """Raise ConfigError where a key that is named like a secret's (llm.api_key) has a text that names no variable."""
    if FIELD.search(where.rpartition(".")[2]) and not (HARMLESS.fullmatch(value) or names_variable(value)):
        raise _secret(where)


def names_variable(text: str) -> bool:
    """Whether a text is the name of an environment variable, not a key in capitals and digits."""
    return bool(VARIABLE.fullmatch(text)) and ("_" in text or text.isalpha() or text in os.environ)


def _secret(where: str) -> ConfigError:
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


def plain(config: Any) -> Any:
    """The configuration as plain containers, interpolations resolved; raises ConfigError where one can't be."""
    try:
        return (
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(config)
            else config
        )
    except OmegaConfBaseException as error:
        # What a resolver of ours has refused says itself what is wrong.
        raise ConfigError(str(error).splitlines()[0].removeprefix(RESOLVING)) from error


def build(config: Any, trusted: Iterable[str] = (), **given: Any) -> Any:
    """The object that a configuration with `_target_` describes, nested ones included.

    Raises ConfigError before anything is imported when a `_target_` is not below a trusted module, and when what it
    names turns out to live elsewhere.
    """
    node = {**plain(config), **given}
    roots = (*TRUSTED, *trusted)
    check_targets(node, roots)
    for target in targets(node):
        if any(part.startswith("_") for part in target.split(".")):
            raise ConfigError(f"_target_: {target} is private to its module; name a public class")
        _check_home(target, roots)
    return _made(node)


def _made(node: Any) -> Any:
    """The objects of plain containers, innermost first: Hydra's `_target_`, `_args_`, `_partial_`, `_recursive_`."""
    if isinstance(node, list):
        return [_made(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner = node.get("_recursive_", True)
    given = {key: _made(value) if inner else value for key, value in node.items() if key not in KEYWORDS}
    if "_target_" not in node:
        return given
    arguments = node.get("_args_", [])
    _, found, names = _module_of(str(node["_target_"]))
    kind = reduce(getattr, names, found)
    try:
        arguments = _made(arguments) if inner else arguments
        return partial(kind, *arguments, **given) if node.get("_partial_") else kind(*arguments, **given)
    except RagOptError:
        raise
    except Exception as error:
        # A constructor may refuse its parameters in any way.
        raise ConfigError(f"{names[-1]}: {error}") from error


def check_targets(node: Any, roots: Iterable[str]) -> None:
    """Raise ConfigError at a `_target_` that is not below one of these modules; nothing is imported."""
    trusted = tuple(roots)
    for target in targets(node):
        if target.partition(".")[0] not in trusted:
            raise ConfigError(
                f"_target_: {target} is not below a trusted module ({', '.join(trusted)}); "
                f"if it is yours, add trusted_modules=[{target.partition('.')[0]}]"
            )


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in plain containers."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def _check_home(target: str, roots: tuple[str, ...]) -> None:
    """Raise ConfigError when there is no such class, or when a trusted module only imported it from elsewhere."""
    module, found, names = _module_of(target)
    for name in names:
        found = getattr(found, name, None)
    if not callable(found):
        raise ConfigError(f"_target_: {target} does not exist: {module} has no '{'.'.join(names)}'")
    home = getattr(found, "__module__", None) or ""
    if home.partition(".")[0] not in roots:
        raise ConfigError(f"_target_: {target} is {home}.{names[-1]}, which is not below a trusted module")
    # A function could do anything with its arguments; of ours only these are made to be named.
    if not isinstance(found, type) and home.partition(".")[0] in TRUSTED and not home.startswith(FACTORIES):
        raise ConfigError(f"_target_: {target} is a function; name a class")


def _module_of(target: str) -> tuple[str, Any, list[str]]:
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
    raise ConfigError(f"_target_: {target}: there is no module '{parts[0]}'")
