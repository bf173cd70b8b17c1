"""The files of trials in the database itself, for processes that share no folder.

Each trial leaves its configuration and its scores in the study's folder. Where the storage is not in that folder, the
same files go into a table of ours beside Optuna's, before the trial is told, and whoever lacks them fetches them there.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterable
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from rag_opt.databases import patient
from rag_opt.progress import say
from rag_opt.settings import trial_folder
from rag_opt.storage import engine_of

FILES = sqlalchemy.Table(
    "rag_opt_files",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("study_id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("trial", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("name", sqlalchemy.String(200), primary_key=True),
    sqlalchemy.Column("content", sqlalchemy.LargeBinary, nullable=False),
)
NAMES = ("config.yaml", "per_query.json")
"""What may come out of a database: a name in it is data."""

LARGEST = 256_000_000
"""Bytes that a file may have when it is unpacked."""


def prepare(study: optuna.Study) -> None:
    """Make the table; to be called by one process at a time."""
    FILES.create(engine_of(study), checkfirst=True)


@patient
def put(study: optuna.Study, folder: Path, number: int) -> None:
    """Keep the files that a trial has left in its folder."""
    place = trial_folder(folder, number)
    rows = [
        {"study_id": study._study_id, "trial": number, "name": name, "content": _packed(place / name)}
        for name in NAMES
        if (place / name).is_file()
    ]
    if rows:
        # SQLite understands the same words.
        given = insert(FILES)
        kept = given.on_conflict_do_update(
            index_elements=["study_id", "trial", "name"], set_={"content": given.excluded.content}
        )
        with engine_of(study).begin() as connection:
            connection.execute(kept, rows)


@patient
def fetch(study: optuna.Study, folder: Path, numbers: Iterable[int]) -> None:
    """Put the files of these trials into the folder, where they are missing."""
    missing = [number for number in numbers if not (trial_folder(folder, number) / NAMES[-1]).is_file()]
    if not missing:
        return
    wanted = sqlalchemy.select(FILES.c.trial, FILES.c.name, FILES.c.content).where(
        FILES.c.study_id == study._study_id, FILES.c.trial.in_(missing), FILES.c.name.in_(NAMES)
    )
    with engine_of(study).connect() as connection:
        rows = connection.execute(wanted).all()
    for number, name, content in rows:
        body = _unpacked(content)
        if body is None:
            say(f"trial {number}: its {name} in the database is damaged; it counts as not there")
            continue
        place = trial_folder(folder, number)
        place.mkdir(parents=True, exist_ok=True)
        # Several workers of a machine may fetch it at once.
        temporary = place / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
        temporary.write_bytes(body)
        temporary.replace(place / name)


def _packed(path: Path) -> bytes:
    return zlib.compress(path.read_bytes(), 6)


def _unpacked(content: bytes) -> bytes | None:
    """The file; None for what is damaged, or larger than any of ours."""
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(content, LARGEST)
    except zlib.error:
        return None
    return body if stream.eof else None
