"""A SQLite file that vanishes while it is in use: that is noticed, and what it held is written to a new file.

Who has a file open goes on reading and writing it when its name is gone or is another file's: all of that would be lost
with the process. So before each transaction the file under the name must be the one that was opened.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy

from rag_opt.errors import LostError
from rag_opt.system.permissions import make_file

SETTLED = 0.5
"""Seconds in which `rm -rf` comes to its end: nothing is written into a folder that is being removed."""


class FileGuard:
    """The file that a study was opened in, held open until `release`."""

    def __init__(self, path: Path) -> None:
        # A relative path would mean another file once the process has gone to another folder.
        self.path = path.absolute()
        self._file = sqlite3.connect(self.path, check_same_thread=False, timeout=SETTLED)
        # What is opened on first use, the log, can be opened now, and no more when its name is gone.
        self._file.execute("SELECT 1 FROM sqlite_master").fetchall()
        self._known = get_file_id(self.path)

    @property
    def lost(self) -> bool:
        """Whether the file that was opened has its name no more."""
        return get_file_id(self.path) != self._known

    def check(self) -> None:
        """Raise LostError when it has its name no more."""
        if self.lost:
            raise LostError(f"{self.path}: the study's file was removed, moved or replaced while it was in use")

    def watch(self, engine: sqlalchemy.Engine) -> None:
        """Have the engine check this before it opens the file again, which would make a new one, or begins anything."""
        sqlalchemy.event.listen(engine, "do_connect", lambda *_: self.check())
        sqlalchemy.event.listen(engine, "begin", lambda _: self.check())

    def rescue(self) -> LostError:
        """Write what the lost file held to a new one, where there is a place for it; the error that says where."""
        time.sleep(SETTLED)
        what = "another file took the place of the study's file" if self.path.exists() else "the study's file is gone"
        found = self._write_copy()
        self._keep_open()
        if isinstance(found, str):
            return LostError(f"{self.path}: {what}, and what it held can't be written anywhere: {found}")
        first = "move that one away" if self.path.exists() else f"mkdir -p {self.path.parent}"
        if kept := self._find_moved():
            first = f"it is whole, and lies at {kept} now; or: {first}"
        return LostError(
            f"{self.path}: {what}, so the study stops; all that it held is in {found}\n"
            f"  to go on from there: {first}; mv {found} {self.path}; then the same command"
        )

    def release(self) -> None:
        """Let go of the file."""
        # A lost file stays open; see _keep_open.
        if not self.lost:
            self._file.close()

    def _write_copy(self) -> Path | str:
        """The new file; why there is none."""
        why = ""
        # The nearest folder that is left; where that can't be written, as on a full disk, the temporary one.
        for folder in (_find_nearest(self.path.parent), Path(tempfile.gettempdir())):
            within = folder == self.path.parent
            # Elsewhere the name has to tell which study it is.
            name = self.path.name if within else f"{self.path.parent.name}.{self.path.name}"
            # With the process's number, since several workers may notice the loss in the same second.
            new = folder / f"{name}.rescued-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
            try:
                make_file(new)
                with closing(sqlite3.connect(new)) as copy:
                    self._file.backup(copy)
                    # One file, without a log beside it: this file alone is what the person is told to move back.
                    copy.execute("PRAGMA journal_mode=DELETE")
                return new
            except (sqlite3.Error, OSError) as error:
                why = f"{new}: {error}"
                with suppress(OSError):
                    new.unlink(missing_ok=True)
        return why

    def _keep_open(self) -> None:
        """Empty the lost file's log and keep the file open for ever, for the sake of what has its name now.

        SQLite takes what lies beside a file for its log, and removes that when it closes the last connection.
        """
        with suppress(sqlite3.Error):
            self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        # A reference that nothing gives back: Python would close the connection when it ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file))

    def _find_moved(self) -> Path | None:
        """Where the lost file lies now, if it was moved; known where the system tells names of open files (Linux)."""
        with suppress(OSError):
            for place in Path("/proc/self/fd").iterdir():
                if get_file_id(place) == self._known:
                    found = place.readlink()
                    # Of a file without a name Linux tells the old one, with " (deleted)" behind it.
                    return found if get_file_id(found) == self._known else None
        return None


def get_file_id(path: Path) -> tuple[int, int] | None:
    """The file that has this name; None for none."""
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_dev, about.st_ino


def _find_nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())
