"""Reading data files: JSON Lines and TSV, plain or gzipped, each error with its file and line."""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import DatasetError

Row = dict[str, Any]
UNZIPPED = 200
"""So many times its size a file may have unzipped: text that people write has 3 to 10."""

SMALL = 1_000_000
"""Bytes that a file may have unzipped, however small it is."""

NAMED = 5
"""Of many keys or ids so many are named."""


def resolve_path(path: str | Path | None, key: str) -> Path:
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


def resolve_gzipped(path: Path) -> Path:
    """The path, or where nothing is there the same with .gz."""
    zipped = path.with_name(f"{path.name}.gz")
    return zipped if zipped.is_file() and not path.exists() else path


def get_stem(path: Path) -> str:
    """The file's name without its endings: questions of questions.jsonl.gz."""
    return Path(path.name.removesuffix(".gz")).stem


def read_text_file(path: Path) -> str:
    """The file's text, unzipped where its name ends in .gz, a byte order mark removed.

    Raises DatasetError when it is empty, damaged or not UTF-8.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path}: {'not a file to read: a text file is expected' if path.exists() else 'no such file'}"
        )
    try:
        text = (_read_gzipped(path) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text at byte {error.start}; convert it to UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: can't be unzipped ({error}); is the file complete, and gzip?") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from error
    if not text.strip():
        raise DatasetError(f"{path}: the file is empty")
    return text


def _read_gzipped(path: Path) -> bytes:
    """The content of a gzipped file; raises DatasetError where it grows as no text does."""
    most = max(UNZIPPED * path.stat().st_size, SMALL)
    with gzip.open(path) as file:
        # One byte beyond the limit tells enough: a small file that unzips without end is never read whole.
        content = file.read(most + 1)
    if len(content) > most:
        raise DatasetError(f"{path}: unzipped it is more than {UNZIPPED} times as large, as no text is; look at it")
    return content


def read_json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """("file:line", object) of each line that is not blank; raises DatasetError at a line that is no JSON object."""
    # Not splitlines: JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(read_text_file(path).split("\n"), 1):
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


def read_json_file(path: Path) -> Any:
    """The one JSON value of a file; raises DatasetError with the line where it breaks."""
    try:
        return json.loads(read_text_file(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}: not JSON ({error.msg}); is the file complete?") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON that can be read ({error})") from error


def parse_id(row: Row, where: str, *names: str) -> str:
    """The row's id under the first of these names that it has, as text: 1 is '1'. Raises DatasetError without one."""
    given = next((row[name] for name in names if name in row), None)
    # bool is an int to Python, but true is no id.
    if isinstance(given, bool) or not isinstance(given, int | str) or not str(given).strip():
        raise DatasetError(
            f"{where}: '{names[0]}' must be a non-empty text or whole number, not {given!r}{_format_keys(row, given)}"[
                :300
            ]
        )
    return str(given)


def parse_text(row: Row, where: str, name: str, default: str | None = None) -> str:
    """The row's text under this name, or the default where it is missing or null; raises DatasetError for no text."""
    given = row.get(name, default)
    if given is None and default is not None:
        return default
    if not isinstance(given, str):
        raise DatasetError(f"{where}: '{name}' must be text, not {given!r}{_format_keys(row, given)}"[:300])
    return given


def parse_body(row: Row, where: str) -> str:
    """A document's text; "" where it is null beside a title, which then stands for it."""
    return "" if "text" in row and row["text"] is None and row.get("title") else parse_text(row, where, "text")


def _format_keys(row: Row, given: Any) -> str:
    """What a row that lacks a key has in its place; "" where something was given."""
    return f"; the keys of this row: {', '.join(map(repr, row)) or 'none'}" if given is None else ""


def format_unread_keys(path: Path, keys: Counter[str], known: Collection[str]) -> list[str]:
    """In one line those keys of a file's rows that nothing reads, and what they may be meant for; [] for none."""
    unknown = [key for key, _ in keys.most_common() if key not in known]
    if not unknown:
        return []
    told = [f"'{sanitize_line(key[:80])}' (in {keys[key]:,} rows{_suggest_key(key, known)})" for key in unknown[:NAMED]]
    return [f"{path.name}: keys that are not read: {', '.join(told)}{', …' if len(unknown) > NAMED else ''}"]


def _suggest_key(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)
    return f"; did you mean '{close[0]}'?" if close else ""


def parse_texts(row: Row, where: str, name: str, *, blank: bool = False) -> tuple[str, ...]:
    """The row's list of texts under this name; () when it is missing. Those of blanks are left out unless `blank`."""
    given = row.get(name)
    given = [] if given is None else given
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise DatasetError(f"{where}: '{name}' must be a list of texts, not {given!r}"[:300])
    return tuple(item for item in given if blank or item.strip())
