"""A finished study, as it lies in its folder and its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.study import StudyDirection

from rag_opt.analysis.findings import Findings
from rag_opt.errors import StudyError
from rag_opt.storages import archive
from rag_opt.storages.databases import get_sqlite_path
from rag_opt.storages.opening import open_study
from rag_opt.storages.schema_checks import check_study
from rag_opt.system.permissions import format_owner

if TYPE_CHECKING:
    from pathlib import Path

    import optuna

PAGE = "report.html"
FILES = ("report.md", PAGE, "best.yaml")
"""What a report leaves in a study's folder."""


def open_finished(folder: Path, storage: str | None = None) -> tuple[Findings, optuna.Study]:
    """The findings and the study of a folder; raises StudyError or StorageError where there is none."""
    findings = Findings.read(folder)
    if foreign := format_owner(folder, *(folder / name for name in (*FILES, "study.db"))):
        raise StudyError(
            f"{folder}: a report is written into it, which you may not do{foreign}; "
            f"or make one in a copy: cp -r {folder} <a folder of yours>"
        )
    database = folder / "study.db"
    # A database in the folder goes before every address: that of the findings leads to where a copy came from.
    url = f"sqlite:///{database.as_posix()}" if database.is_file() else (storage or findings.url)
    path = get_sqlite_path(url)
    # Opening it would leave an empty database there.
    if path is not None and not path.is_file():
        raise StudyError(f"{folder}: its database {path} is gone; the report that lies there is the last one")
    if ":***@" in url:
        raise StudyError(f"{folder}: its storage {url} needs a password: name the whole URL with --storage")
    directions = [StudyDirection.MAXIMIZE if sign > 0 else StudyDirection.MINIMIZE for sign in findings.signs.values()]
    study = open_study(url, findings.name, directions)
    # A study of an older version has no such table.
    archive.create_table(study)
    check_study(study, folder)
    if not study.get_trials(deepcopy=False):
        raise StudyError(f"{folder}: its storage has no trial of '{findings.name}'; name the right one with --storage")
    return findings, study
