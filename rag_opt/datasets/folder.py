"""A folder of documents as people have them: what is in it, what is left out and why. A parser reads them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pathspec

from rag_opt.console.terminal import format_names
from rag_opt.datasets.checks import build_dataset, check_flag
from rag_opt.datasets.files import get_stem, resolve_path
from rag_opt.datasets.jsonl import read_questions
from rag_opt.documents.formats import PLAIN
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, SourceFile

IGNORED = (".*", "~$*", "*.tmp", "__pycache__/", "node_modules/")
"""What is never a document, in the syntax of .gitignore."""


@dataclass(frozen=True)
class Skipped:
    """A file that is no document, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder by name, and those that are left out."""

    files: tuple[SourceFile, ...]
    skipped: tuple[Skipped, ...]

    @property
    def repeated(self) -> list[list[str]]:
        """Names of files with the same bytes, those of two or more."""
        found: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            found[file.digest].append(file.id)
        return [names for names in found.values() if len(names) > 1]

    def format_notes(self) -> list[str]:
        """What was left out, by reason."""
        reasons = Counter(each.reason for each in self.skipped)
        return [
            f"{count:,} file{'s' * (count > 1)} left out ({reason}): "
            + format_names(each.name for each in self.skipped if each.reason == reason)
            for reason, count in reasons.items()
        ]


def load(
    path: str | None,
    questions: str | None,
    *,
    include: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    most_mb: float = 100,
    strict: bool = True,
) -> Dataset:
    """The dataset of a folder of files, and of questions about them as rag_opt.datasets.jsonl reads them.

    A document's id is its file's path below the folder, with /. `include` and `ignore` are patterns in the syntax of
    .gitignore; files above `most_mb` are left out. Gold evidence is a quote: {"doc_id", "quote", "page"?}.
    """
    check_flag("strict", strict)
    listing = list_files(resolve_path(path, "dataset.path"), include, ignore, most_mb)
    if questions is None:
        raise DatasetError("dataset.questions is not set: give a file of questions about these documents")
    asked = resolve_path(questions, "dataset.questions")
    queries, judgements, notes = read_questions(asked)
    notes = [*listing.format_notes(), *notes]
    return build_dataset(get_stem(asked), listing.files, queries, judgements, notes, strict=strict)


def list_files(
    folder: Path, include: Sequence[str] | None = None, ignore: Sequence[str] = (), most_mb: float = 100
) -> Listing:
    """The files of a folder, by name; raises DatasetError where none can be read.

    A link to a file is followed as long as it stays in the folder, one to a folder never.
    """
    if not folder.is_dir():
        raise DatasetError(f"dataset.path={folder}: a folder of documents is expected")
    wanted = _compile("include", include) if include else None
    # Its own patterns first: a later ! takes one back.
    unwanted = _compile("ignore", ignore, IGNORED)
    files, skipped = list[SourceFile](), list[Skipped]()
    root = folder.resolve()
    for name, place in _walk(folder, root, unwanted, skipped):
        if wanted is not None and not wanted.match_file(name):
            continue
        reason = _find_reason(place, root, most_mb)
        if reason:
            skipped.append(Skipped(name, reason))
            continue
        try:
            with place.open("rb") as file:
                # What a parser makes of the file is kept under it, and refused where the file has changed by then.
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            skipped.append(Skipped(name, f"it can't be read: {error.strerror}"))
            continue
        files.append(SourceFile(name, "", path=str(place.absolute()), digest=digest))
    if not files:
        left = f"; left out: {format_names(f'{each.name} ({each.reason})' for each in skipped)}" if skipped else ""
        raise DatasetError(f"{folder}: there is no document in it{left}")
    return Listing(tuple(files), tuple(skipped))


def _compile(key: str, patterns: Sequence[str], before: Sequence[str] = ()) -> pathspec.GitIgnoreSpec:
    # A text is a sequence, too: of patterns of one letter each.
    if isinstance(patterns, str):
        raise DatasetError(f"dataset.{key}={patterns}: a list of patterns is expected: dataset.{key}=[{patterns}]")
    try:
        return pathspec.GitIgnoreSpec.from_lines([*before, *patterns])
    except (ValueError, TypeError) as error:
        raise DatasetError(f"dataset.{key}={patterns}: patterns as in .gitignore are expected: {error}") from error


def _walk(
    folder: Path, root: Path, unwanted: pathspec.GitIgnoreSpec, skipped: list[Skipped]
) -> Iterator[tuple[str, Path]]:
    """(name, path) of each file, in order; what an ignored folder holds is not looked at."""

    def note_error(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix()
        skipped.append(Skipped(name, f"it can't be read: {error.strerror}"))

    for place, folders, names in os.walk(folder, onerror=note_error):
        below = Path(place).relative_to(folder).as_posix()
        start = "" if below == "." else f"{below}/"
        # os.walk enters no link to a folder; one that stays inside leads to files that are listed where they lie.
        links = [name for name in sorted(folders) if (Path(place) / name).is_symlink()]
        skipped += [Skipped(f"{start}{name}", OUTSIDE) for name in links if not _lies_in(Path(place) / name, root)]
        # In place: os.walk goes on with what is left.
        folders[:] = sorted(name for name in folders if not unwanted.match_file(f"{start}{name}/"))
        # Sorted, since disks list files in orders of their own.
        yield from (
            (f"{start}{name}", Path(place) / name)
            for name in sorted(names)
            if not unwanted.match_file(f"{start}{name}")
        )


def _lies_in(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False


OUTSIDE = "a link out of the folder"


def _find_reason(path: Path, root: Path, most_mb: float) -> str:
    """Why a file is no document; "" where it may be one."""
    if path.suffix.lower() not in PLAIN:
        return f"nothing here reads {path.suffix.lower() or 'files without an ending'}"
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return OUTSIDE
        # A pipe would be waited for, and a device read without end.
        if not path.is_file():
            return "no file"
        size = path.stat().st_size
    except (OSError, RuntimeError) as error:
        # RuntimeError: a link that leads to itself.
        return f"it can't be read: {getattr(error, 'strerror', None) or error}"
    if size > most_mb * 1e6:
        return f"above dataset.most_mb={most_mb:g}"
    return "" if size else "empty"
