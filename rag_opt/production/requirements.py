"""What a bundle needs beside what is in it: code of one's own is copied into it, distributions are named."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from rag_opt.config.trust import TRUSTED
from rag_opt.console.progress import report_line

CODE = "code"
"""The folder of a bundle that holds it."""


def copy_code(trusted: Sequence[str], folder: Path) -> None:
    """Copy the Python files of trusted modules, whole packages, into `folder`; none of what is installed."""
    for root in _list_roots(trusted):
        place = _find_place(root)
        if place is None:
            report_line(f"trusted_modules: {root} is no file, and no package with an __init__.py: not in the bundle")
            continue
        if _is_installed(place):
            continue
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        for file in files:
            copy = folder / file.relative_to(place.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def list_requirements(trusted: Sequence[str] = ()) -> list[str]:
    """What an environment for the model needs, in the versions that are installed here; the code itself is logged."""
    wanted = (Requirement(line) for line in requires("rag-opt-studies") or ())
    ours = {f"{each.name}=={version(each.name)}" for each in wanted if each.marker is None}
    return sorted({*ours, *_list_distributions(trusted)})


def _list_distributions(trusted: Sequence[str]) -> set[str]:
    roots = _list_roots(trusted)
    # Reading what is installed takes a third of a second.
    known = packages_distributions() if roots else {}
    found = {name for root in roots for name in known.get(root, ()) if _is_installed(_find_place(root))}
    return {f"{name}=={version(name)}" for name in found}


def use_code(folder: Path) -> None:
    """Have the modules of a bundle's code found, behind those that are found without it."""
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))


def _list_roots(trusted: Sequence[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in trusted} - {*TRUSTED})


def _find_place(root: str) -> Path | None:
    """The folder of a package, the file of a module; None for what is built in, or lies in several folders."""
    try:
        spec = find_spec(root)
    except ValueError:
        # A module that was made, not imported.
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _is_installed(place: Path | None) -> bool:
    homes = (Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
    return place is not None and any(home in place.parents for home in homes)
