"""Folders in which several people work: files are made as the umask says, and messages say whose a file is."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_opt.errors import StoreError


def make_file(path: Path) -> None:
    """An empty file as the umask says, where there is none: SQLite makes one that only its owner may write."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def make_unique_path(folder: Path, prefix: str) -> Path:
    """A name that nothing in the folder has; tempfile's files and folders are for their owner alone."""
    # The process's number is not enough: threads share it, and so may processes of other machines or containers.
    return folder / f"{prefix}{os.getpid()}-{secrets.token_hex(8)}"


def replace_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads at this moment, or after a kill, finds what was there before or this."""
    # Beside the file: a rename is one step only within a file system.
    whole = make_unique_path(path.parent, f".{path.name}")
    whole.write_text(text, "utf-8")
    whole.replace(path)


def format_owner(*paths: Path) -> str:
    """Who has to be asked where one of these may not be written, as the end of a sentence; "" where all may be.

    Of one that is not there its folder counts.
    """
    for path in paths:
        there = next((each for each in (path, *path.absolute().parents) if each.exists()), None)
        if there is not None and not os.access(there, os.W_OK):
            about = there.stat()
            mode = f"{_get_user_name(about.st_uid)} ({stat.filemode(about.st_mode)})"
            return f"; {there} belongs to {mode}: ask for the right to write it, chmod -R g+w for a group's"
    return ""


@contextmanager
def catch_disk_errors(path: Path) -> Iterator[None]:
    """Work on what lies in the store; what the disk raises becomes a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"store.path: {path} can't be read or written: {error.strerror or error}{format_owner(path)}"
        ) from error


def _get_user_name(user: int) -> str:
    """The user's name, the number where it has none."""
    # Windows has no pwd, and in a container a user may have no name.
    with suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(user).pw_name
    return f"user {user}"
