"""What a pipeline of one's own may be made of: nothing is imported before all of it is known to be allowed.

Haystack's own loader refuses modules that nobody has allowed. Here more is refused: what runs code that a file does not
show, and what fetches addresses or calls tools without being asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag_opt.config.own_pipelines import INIT, TYPE, Definition, iterate_objects
from rag_opt.config.trust import REMOTE_CODE, check_secrets
from rag_opt.errors import ConfigError

ALLOWED = (
    *("haystack.components", "haystack.dataclasses", "haystack.document_stores", "haystack.utils", "haystack.tools"),
    *("haystack.core.super_component", "haystack.core.pipeline", "haystack_integrations.components"),
    *("haystack_integrations.document_stores", "haystack_integrations.common", "haystack.token_counters"),
)
"""Below which modules a class may live that nobody had to trust."""

REFUSED = {
    "haystack.components.fetchers": "it fetches addresses",
    "haystack_integrations.components.connectors": "it calls services with arguments that a model chooses",
}
"""What of these has to be trusted all the same, and why."""

UNSHOWN = {
    "unsafe": "it lets templates run code",
    "custom_filters": "its filters are code",
    REMOTE_CODE: "it runs code",
}
"""Parameters that make a component run code that its definition does not show."""

CALLED = ("function", "async_function", "handler")
"""Parameters that name functions, which are called."""

USER_INFO = re.compile(r"://[^/\s:@]+:[^/\s@]+@")
CREDENTIALS = ("http_auth", "basic_auth")
"""Parameters of clients that take a user and a password."""

PLAIN = ("builtins", "typing", "collections")
"""Where types live that a schema names; Haystack takes no function from there."""

SHAPES = ("env_var", "token", "single", "multiple")
"""Values of `type` that name no class: secrets, devices."""


def check_allowed(named: str, definition: Definition, trusted: Sequence[str]) -> None:
    """Raise ConfigError for what may not be built: nothing is imported before all of it is known to be allowed."""
    for where, node in iterate_objects(definition["components"]):
        kind = str(node[TYPE])
        if kind in SHAPES or not _names_class(kind) or ("." in where and _is_below(kind, PLAIN)):
            continue
        check_type(f"{named}.{where}", kind, trusted)
    for where, key, value in _iterate_values(definition["components"], ""):
        if key in UNSHOWN and value:
            raise ConfigError(
                f"{named}.{where}={str(value)[:60]}: {UNSHOWN[key]} that the file does not show; leave it out"
            )
        if _holds_password(key, value):
            raise ConfigError(
                f"{named}.{where} holds a password, and a configuration is written to files and databases: name the "
                "environment variable that holds it: {type: env_var, env_vars: [NAME]}"
            )
        if key in CALLED and isinstance(value, str):
            check_type(f"{named}.{where}", value, trusted, called=True)
    check_secrets(definition["components"], named)


def _holds_password(key: str, value: Any) -> bool:
    """Whether a value is an address with a password in it, or a user and a password as plain text."""
    if isinstance(value, str):
        return bool(USER_INFO.search(value)) or (key in CREDENTIALS and ":" in value)
    return key in CREDENTIALS and isinstance(value, list) and any(isinstance(each, str) for each in value)


def _names_class(kind: str) -> bool:
    """Whether a `type` is the dotted name of something: others are words of a component's own (JSON schemas, roles)."""
    return "." in kind and kind.replace(".", "").replace("_", "").isalnum()


def is_class(kind: str) -> bool:
    """Whether a `type` within a component names a class of its own, not a secret's form, a schema's type or a word."""
    return kind not in SHAPES and _names_class(kind) and not _is_below(kind, PLAIN)


def check_type(where: str, kind: str, trusted: Sequence[str], *, called: bool = False) -> None:
    """Raise ConfigError for a class, or a function that would be called, of a module that is not trusted."""
    # First, so that what is refused otherwise can be trusted by name.
    if _is_below(kind, trusted):
        return
    for module, why in REFUSED.items():
        if _is_below(kind, [module]):
            raise ConfigError(
                f"{where}: {kind}: {why}; if you trust this file with that, add trusted_modules=[{module}]"
            )
    if called or not _is_below(kind, ALLOWED):
        what = "it names a function, which would be called" if called else "its module is not trusted"
        root = kind.rpartition(".")[0]
        raise ConfigError(
            f"{where}: {kind}: {what}, so it is not imported; if it is yours, add trusted_modules=[{root}] to the "
            "command line"
        )


def _is_below(kind: str, modules: Sequence[str]) -> bool:
    # With the dot: to trust `mine` is not to trust `mine_and_yours`.
    return any(kind == each or kind.startswith(f"{each}.") for each in modules)


def iterate_functions(components: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of the functions that a definition has called."""
    for _, key, value in _iterate_values(components, ""):
        if key in CALLED and isinstance(value, str):
            yield value


def _iterate_values(node: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """(place, key, value) of everything that a definition sets."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = where if key == INIT else f"{where}.{key}".lstrip(".")
            yield place, str(key), value
            yield from _iterate_values(value, place)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _iterate_values(value, f"{where}[{number}]")
