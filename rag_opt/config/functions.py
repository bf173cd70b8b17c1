"""Functions that a configuration names, of trusted modules alone: a pipeline's factory, a pipeline that is one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from rag_opt.config.trust import TRUSTED, import_target
from rag_opt.errors import ConfigError, format_hint

QUESTION = "question"
PLAIN = (bool, int, float, str)
"""What a configuration can hold as a default."""


def import_trusted(key: str, name: Any, trusted: Sequence[str]) -> Callable[..., Any]:
    """The function of this dotted name, imported only where its module is trusted; raises ConfigError."""
    if not isinstance(name, str) or "." not in name:
        raise ConfigError(f"{key}={name}: the dotted name of a function is expected, such as {key}=my_package.answer")
    root = name.partition(".")[0]
    # TRUSTED is trusted for its classes; a library's function could do anything with its arguments.
    if not any(name == each or name.startswith(f"{each}.") for each in trusted) or root in TRUSTED:
        raise ConfigError(
            f"{key}={name}: {root} is not trusted, so it is not imported; if it is yours, add trusted_modules=[{root}] "
            "to the command line"
        )
    if any(part.startswith("_") for part in name.split(".")):
        raise ConfigError(f"{key}={name} is private to its module; name a public function")
    try:
        found = import_target(name)
    except ConfigError as error:
        raise ConfigError(f"{key}={name}: {str(error).removeprefix('_target_: ')}") from error
    except Exception as error:
        # Whatever its module does when it is imported.
        raise ConfigError(
            f"{key}={name}: its module can't be imported: {type(error).__name__}: {error}"[:400]
        ) from error
    if not callable(found):
        raise ConfigError(f"{key}={name} is no function but a {type(found).__name__}")
    # A trusted module that imports os.system has not thereby written it.
    home = str(getattr(found, "__module__", "") or "")
    if home.partition(".")[0] != root:
        raise ConfigError(f"{key}={name} is {home}'s, which is not trusted: {root} only imports it")
    return found  # type: ignore[no-any-return]


def get_defaults(function: Callable[..., Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """The function's keyword arguments with the defaults that a configuration can hold; `given` are left out."""
    found = inspect.signature(function).parameters.values()
    return {
        each.name: each.default
        for each in found
        if each.name not in given and (isinstance(each.default, PLAIN) or each.default is None)
    }


def check_arguments(key: str, name: str, function: Callable[..., Any], given: Sequence[str]) -> None:
    """Raise ConfigError where a function does not take one of these arguments, or needs another."""
    try:
        # Each stands for None: only the names are checked, and nothing is called.
        inspect.signature(function).bind(**dict.fromkeys(given))
    except TypeError as error:
        known = [each for each in inspect.signature(function).parameters if each != QUESTION]
        wrong = next((each for each in given if each != QUESTION and each not in known), "")
        hint = f"; {format_hint(wrong, known)}" if wrong else ""
        raise ConfigError(f"{key}={name}: {error}; set its arguments with parameters.<name>=…{hint}") from error
