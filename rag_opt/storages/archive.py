"""The files of trials in the study's database, which is all that a study needs.

Each trial leaves its configuration and its scores in the study's folder, for people and for MLflow. Before it is told,
the same goes into a table of ours beside Optuna's. That is what is read; whoever lacks a file gets it from there.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from rag_opt.config.settings import get_trial_folder
from rag_opt.console.screens import report_line
from rag_opt.samplers.internals import get_study_id
from rag_opt.storages.databases import retry_transient
from rag_opt.storages.opening import get_engine

FILES = sqlalchemy.Table(
    "rag_opt_files",
    sqlalchemy.MetaData(),
    # Studies may share a database.
    sqlalchemy.Column("study_id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("trial", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("name", sqlalchemy.String(200), primary_key=True),
    sqlalchemy.Column("content", sqlalchemy.LargeBinary, nullable=False),
)
SCORES = "per_query.json"
NAMES = ("config.yaml", SCORES)
"""What may come out of a database: a name in it is data."""

LARGEST = 256_000_000
"""Bytes that a file may have when it is unpacked."""

QUICK = 1
"""zlib's level: 52 kB of scores in 0.7 ms to 17 kB; its default takes twice as long for a tenth less."""


def create_table(study: optuna.Study) -> None:
    """Make the table; to be called by one process at a time."""
    # checkfirst looks and then makes: two at once would both make it, and one would fail.
    FILES.create(get_engine(study), checkfirst=True)


@retry_transient
def store_files(study: optuna.Study, number: int, files: Mapping[str, bytes]) -> None:
    """Keep a trial's files, by their names."""
    rows = [
        {"study_id": get_study_id(study), "trial": number, "name": name, "content": zlib.compress(body, QUICK)}
        for name, body in files.items()
    ]
    if rows:
        # SQLite understands the same words.
        given = insert(FILES)
        # A call made again after a broken connection, or scores that were measured again, replace what is there.
        kept = given.on_conflict_do_update(
            index_elements=["study_id", "trial", "name"], set_={"content": given.excluded.content}
        )
        with get_engine(study).begin() as connection:
            connection.execute(kept, rows)


@retry_transient
def load_files(study: optuna.Study, numbers: Iterable[int]) -> dict[int, dict[str, bytes]]:
    """The files of these trials, by number and name; what is damaged counts as not there, and is said."""
    wanted = sqlalchemy.select(FILES.c.trial, FILES.c.name, FILES.c.content).where(
        FILES.c.study_id == get_study_id(study), FILES.c.trial.in_(list(numbers)), FILES.c.name.in_(NAMES)
    )
    with get_engine(study).connect() as connection:
        rows = connection.execute(wanted).all()
    found: dict[int, dict[str, bytes]] = {}
    for number, name, content in rows:
        body = _decompress(content)
        if body is None:
            report_line(f"trial {number}: its {name} in the database is damaged; it counts as not there")
        else:
            found.setdefault(number, {})[name] = body
    return found


@retry_transient
def get_trial_numbers(study: optuna.Study) -> set[int]:
    """The trials whose scores are in the database."""
    wanted = sqlalchemy.select(FILES.c.trial).where(FILES.c.study_id == get_study_id(study), FILES.c.name == SCORES)
    with get_engine(study).connect() as connection:
        return set(connection.execute(wanted).scalars())


def fetch_files(study: optuna.Study, folder: Path, wanted: Iterable[int]) -> None:
    """Put the files of these trials into the folder, where they are missing."""
    missing = [n for n in wanted if not all((get_trial_folder(folder, n) / name).is_file() for name in NAMES)]
    for number, files in load_files(study, missing).items() if missing else ():
        for name, body in files.items():
            if not (get_trial_folder(folder, number) / name).is_file():
                write_file(folder, number, name, body)


def write_file(folder: Path, number: int, name: str, body: bytes) -> None:
    """Leave a file in a trial's folder, whole or not at all."""
    place = get_trial_folder(folder, number)
    place.mkdir(parents=True, exist_ok=True)
    # Several workers of a machine may do so at once.
    temporary = place / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    temporary.write_bytes(body)
    temporary.replace(place / name)


def _decompress(content: bytes) -> bytes | None:
    """The file; None for what is damaged, or larger than any of ours."""
    stream = zlib.decompressobj()
    try:
        # Bounded, because a small row of somebody else's may stand for more than memory holds.
        body = stream.decompress(content, LARGEST)
    # SQLite keeps any type in any column: a text here is a TypeError.
    except (zlib.error, TypeError):
        return None
    # Not at its end: cut short, or larger than LARGEST.
    return body if stream.eof else None
