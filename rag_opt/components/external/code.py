"""What stands for the code of a class or a function: the content of the package that it lives in."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rag_opt.config.own_pipelines import TYPE, Definition, iterate_objects
from rag_opt.config.own_trust import is_class, iterate_functions
from rag_opt.config.trust import import_target
from rag_opt.errors import ConfigError
from rag_opt.records.keys import compute_key
from rag_opt.system.haystack import __version__ as haystack_version


@cache
def digest_code(function: Callable[..., Any]) -> str:
    """The hash of the Python files of the package that it lives in, or of its module's one file; once a process.

    What was imported stays what it was, whatever is written into its files meanwhile.
    """
    # An object that can be called is known by its class.
    known = function if hasattr(function, "__qualname__") else type(function)
    place = inspect.getsourcefile(inspect.unwrap(known))
    if place is None:
        raise ConfigError(
            f"{known.__module__}.{known.__qualname__} has no file that its code is known by; set pipeline.version"
        )
    path = Path(place)
    top = Path(getattr(sys.modules.get(known.__module__.partition(".")[0]), "__file__", None) or place)
    # An editor's lock is a link to nowhere whose name ends like a module's.
    whole = top.name == "__init__.py"
    files = sorted(each for each in top.parent.rglob("*.py") if each.is_file()) if whole else [path]
    # By what is in them and not when they were written: a fresh checkout is the same code.
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in files]
    return compute_key([each.name for each in files], digests)


def get_codes(definition: Definition) -> str:
    """What stands for the code of everything in a definition: its classes, and the functions that it names."""
    objects = [str(node[TYPE]) for _, node in iterate_objects(definition["components"])]
    named = [kind for kind in objects if is_class(kind) and "." in kind]
    kinds = {*named, *iterate_functions(definition["components"])}
    return compute_key(sorted((kind, get_code(kind)) for kind in kinds))


@cache
def get_code(kind: str) -> str:
    """What stands for the code of a class or function, as it was when this process first used it.

    Of Haystack its version, of an integration the content of its file, of anything else that of its package.
    """
    if kind.startswith("haystack."):
        return haystack_version
    try:
        found = import_target(kind)
        if not kind.startswith("haystack_integrations."):
            return digest_code(found)
        return hashlib.sha256(Path(str(inspect.getsourcefile(found))).read_bytes()).hexdigest()
    except Exception:
        # What is no class here, or has no file, is known by its name alone.
        return kind
