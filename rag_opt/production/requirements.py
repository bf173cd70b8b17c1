"""What a bundle needs beside what is in it: code of one's own is copied into it, distributions are named."""

from __future__ import annotations

import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import distribution, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from rag_opt.config.trust import TRUSTED
from rag_opt.console.screens import report_line
from rag_opt.errors import ComponentError, ConfigError, ModelError

CODE = "code"
"""The folder of a bundle that holds it."""


def copy_code(trusted: Sequence[str], folder: Path, earlier: Path | None = None) -> None:
    """Copy the Python files of trusted modules, whole packages, into `folder`; none of what is installed.

    Of modules that are not found here those in an `earlier` bundle's code are taken. Raises ModelError where one can't
    be read.
    """
    for root in _list_roots(trusted):
        place = _find_place(root) or (None if earlier is None else _find_within(earlier, root))
        if place is not None and _is_installed(root, place):
            continue
        files = [] if place is None else _list_files(place)
        if place is None or not files:
            report_line(f"trusted_modules: {root} is no file, and no package with an __init__.py: not in the bundle")
            continue
        for file in files:
            copy = folder / file.relative_to(place.parent)
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            except OSError as error:
                raise ModelError(f"trusted_modules: {root}: {file} can't be copied: {error.strerror}") from error


def list_requirements(trusted: Sequence[str] = ()) -> list[str]:
    """What an environment for the model needs, in the versions that are installed here; the code itself is logged."""
    wanted = (Requirement(line) for line in requires("rag-opt-studies") or ())
    # What belongs to an extra carries a marker.
    ours = {f"{each.name}=={version(each.name)}" for each in wanted if each.marker is None}
    return sorted({*ours, *_list_distributions(trusted)})


@contextmanager
def skip_requirement_check() -> Iterator[None]:
    """MLflow does not look within it whether what it logs can be met here: `list_requirements` names what is here.

    To do so it maps every module that is installed to its distribution, which takes half a second.
    """
    _patch_requirement_check()
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


# Cached, since a second patch would wrap the first.
@cache
def _patch_requirement_check() -> None:
    from mlflow.utils import requirements_utils

    name = "_check_requirement_satisfied"
    look = getattr(requirements_utils, name)
    # MLflow has no setting for it; None says that a requirement is met.
    setattr(requirements_utils, name, lambda requirement: None if _skipped.get() else look(requirement))


_skipped: ContextVar[bool] = ContextVar("skipped", default=False)
"""Of this thread alone: others may log models of their own."""


def use_code(folder: Path) -> None:
    """Have the modules of a bundle's code found, behind those that are found without it."""
    if folder.is_dir() and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))


@contextmanager
def explain_lacking(code: Path) -> Iterator[None]:
    """Where a pipeline can't be built within it, and modules of a bundle's code are not found, say where they lie."""
    # What one trusts is said on a command line, never in a file: code is not run because it lies in a bundle.
    try:
        yield
    except (ConfigError, ComponentError) as error:
        lacking = [root for root in _list_modules(code) if _find_place(root) is None]
        if not lacking:
            raise
        told = f"if you trust what came with the model, PYTHONPATH={code.resolve()} has it found"
        raise ModelError(f"{error}; {told}: {', '.join(lacking)}") from error


def report_other_code(code: Path) -> None:
    """Say which modules in use are not those of a bundle's code: a process has one of a name."""
    for root in _list_modules(code):
        place, known = _find_place(root), _find_within(code, root)
        if root not in sys.modules or place is None or known is None:
            continue
        pairs = [(file, place.parent / file.relative_to(code)) for file in _list_files(known)]
        if any(not there.is_file() or there.read_bytes() != file.read_bytes() for file, there in pairs):
            report_line(f"{place} is used, and differs from the {root} that came with the model ({code})")


def _list_distributions(trusted: Sequence[str]) -> set[str]:
    places = {root: _find_place(root) for root in _list_roots(trusted)}
    roots = [root for root, place in places.items() if place is not None and _is_installed(root, place)]
    known = packages_distributions() if roots else {}
    return {f"{name}=={version(name)}" for root in roots for name in known.get(root, ())}


def _list_roots(trusted: Sequence[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in trusted} - {*TRUSTED})


def _list_modules(code: Path) -> list[str]:
    return sorted({path.stem for path in code.iterdir()}) if code.is_dir() else []


def _list_files(place: Path) -> list[Path]:
    # An editor's lock is a link to nowhere whose name ends like a module's.
    return [place] if place.is_file() else sorted(each for each in place.rglob("*.py") if each.is_file())


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


def _find_within(folder: Path, root: str) -> Path | None:
    return next((path for path in (folder / root, folder / f"{root}.py") if path.exists()), None)


def _is_installed(root: str, place: Path) -> bool:
    """Whether an index has it: it was installed, and not from a folder of one's own."""
    paths = (*(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")), *site.getsitepackages())
    if not any(Path(home) in place.parents for home in (*paths, site.getusersitepackages())):
        return False
    # Reading what is installed takes a third of a second.
    names = packages_distributions().get(root, ())
    # pip writes this file (PEP 610) for what came from a folder or an address, which no index has.
    return not any(distribution(name).read_text("direct_url.json") for name in names)
