"""Reading data files: JSON Lines and TSV, each error with its file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_opt.errors import DatasetError

Row = dict[str, Any]


def existing(path: str | Path | None, key: str) -> Path:
    """The path, expanded; raises DatasetError when none was given or nothing is there."""
    if path is None or not str(path).strip():
        raise DatasetError(f"{key} is not set: give the file or folder, as {key}=path/to/data")
    try:
        found = Path(str(path)).expanduser()
        there = "\0" not in str(path) and found.exists()
    except (OSError, RuntimeError) as error:
        # A name that is too long, a folder that may not be looked into, a `~user` that nobody is.
        raise DatasetError(f"{key}={str(path)[:200]}: can't be looked for: {error}"[:500]) from error
    if not there:
        raise DatasetError(f"{key}={path}: no such file or folder (looked for {found.absolute()})")
    return found


def text_of(path: Path) -> str:
    """The file's text, a byte order mark removed; raises DatasetError when it is empty or not UTF-8."""
    if not path.is_file():
        raise DatasetError(
            f"{path}: {'not a file to read: a text file is expected' if path.exists() else 'no such file'}"
        )
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text at byte {error.start}; convert it to UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from error
    if not text.strip():
        raise DatasetError(f"{path}: the file is empty")
    return text


def json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """("file:line", object) of each line that is not blank; raises DatasetError at a line that is no JSON object."""
    # Not splitlines: JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            # Also a number of thousands of digits, and thousands of brackets.
            raise DatasetError(f"{where}: not JSON ({error}); one object a line is expected") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{where}: a JSON object is expected, not {type(row).__name__}")
        yield where, row


def json_file(path: Path) -> Any:
    """The one JSON value of a file; raises DatasetError with the line where it breaks."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}: not JSON ({error.msg}); is the file complete?") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON that can be read ({error})") from error


def identifier(row: Row, where: str, *names: str) -> str:
    """The row's id as text (an int is accepted: 1 is '1')."""
    given = next((row[name] for name in names if name in row), None)
    if isinstance(given, bool) or not isinstance(given, int | str) or not str(given).strip():
        raise DatasetError(f"{where}: '{names[0]}' must be a non-empty text or whole number, not {given!r}")
    return str(given)


def text(row: Row, where: str, name: str, default: str | None = None) -> str:
    """The row's text under this name; raises DatasetError when it is missing (without a default) or no text."""
    given = row.get(name, default)
    if given is None and default is not None:
        return default
    if not isinstance(given, str):
        raise DatasetError(f"{where}: '{name}' must be text, not {given!r}"[:300])
    return given


def texts(row: Row, where: str, name: str, *, blank: bool = False) -> tuple[str, ...]:
    """The row's list of texts under this name; () when it is missing. Those of blanks are left out unless `blank`."""
    given = row.get(name) or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise DatasetError(f"{where}: '{name}' must be a list of texts, not {given!r}"[:300])
    return tuple(item for item in given if blank or item.strip())
