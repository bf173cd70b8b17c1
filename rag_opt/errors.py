"""Every error that rag_opt raises on purpose, in one tree.

RagOptError
├── ConfigError         a key, group, choice, value or `_target_` that can't be used
│   └── SearchSpaceError    a parameter, range, `when` or `below` that can't be searched
├── DatasetError        a file, record, qrel or split that can't be used
├── ComponentError      a component, model or index that can't be built or run
├── MetricError         an unknown metric, or one that this dataset can't feed
├── StoreError          a folder or artifact that can't be read or written
├── ModelError          a bundle, registered model or alias that can't be used
└── StudyError          a study that can't be opened
    ├── StorageError        its file or database
    │   └── LostError           its file was removed, moved or replaced while it was in use
    ├── DriftError          it was made with another dataset, space, objective or pipeline
    └── OutageError         what surrounds it fails for every configuration: disk, memory, network, a service

A message is one to four lines: what happened, where, what was given, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RagOptError(Exception):
    """Something a user can mend; its message is shown alone, without a traceback."""


class ConfigError(RagOptError):
    """A configuration that can't be used."""


class SearchSpaceError(ConfigError):
    """A search space that can't be searched."""


class DatasetError(RagOptError):
    """A dataset that can't be used."""


class ComponentError(RagOptError):
    """A component that can't be built or run."""


class MetricError(RagOptError):
    """A metric that is unknown, or that the dataset can't feed."""


class StoreError(RagOptError):
    """An artifact folder that can't be used."""


class ModelError(RagOptError):
    """A bundle, registered model or alias that can't be used."""


class StudyError(RagOptError):
    """A study that can't be opened or continued."""


class StorageError(StudyError):
    """A study file or database that can't be used."""


class LostError(StorageError):
    """A study file that was removed, moved or replaced while it was in use."""


class DriftError(StudyError):
    """A study whose dataset, space, objective or pipeline is not the one it was made with."""


class OutageError(StudyError):
    """A study around which a disk, a service or something else fails for every configuration."""


def get_first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what an error says, at most so many characters; its type's name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def format_hint(given: str, valid: Iterable[str]) -> str:
    """The advice for a misspelt name: the nearest valid one, else all of them (empty: "")."""
    names = sorted(set(valid))
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{by_lower[close[0]]}'?"
    return f"valid: {', '.join(names)}" if names else ""
