"""Parsers: files → documents. What a parser makes of a file is kept under its bytes, the parser and its version."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.components.checks import require, require_number
from rag_opt.components.stage import Stage
from rag_opt.console.progress import track
from rag_opt.documents.formats import ENGINES, identify_converter
from rag_opt.documents.parsed import MomentaryError, Parsed, UnreadableFileError
from rag_opt.documents.pool import Pool
from rag_opt.records.documents import Document, Documents, SourceFile
from rag_opt.records.keys import compute_key
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns

NAMED = 3
"""Of files that give no text so many are named in a line; `python -m rag_opt.documents` shows all."""


@dataclass(frozen=True)
class ReadFile:
    """What was made of a file, why nothing was ("" where something was), and the seconds that it took."""

    name: str
    parsed: Parsed
    error: str
    seconds: float
    momentary: bool = False
    """Whether it may give a text the next time."""


KEPT = 2
"""Corpora as they were read that stay in memory: each parser makes its own."""


@component
class Parser(Stage):
    """Files → their texts, by an `engine`; documents that are texts already stay as they are.

    - `plain`: a library for each format (pypdf, trafilatura, python-docx …);
    - `pdfminer`: the same, PDF by its layout;
    - `markitdown`, `docling`: what these read, the rest as by `plain`.

    A file that takes more than `seconds` or `memory_gb` gives no text, nor does one that can't be read: it stays a
    document, in which nothing is found, and is named.
    """

    algorithm = "rag_opt.components.parsers.Parser"

    def __init__(self, engine: str, seconds: float, memory_gb: float) -> None:
        require(engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}, not {engine}")
        require_number("seconds", seconds, 0.1, 3_600)
        require_number("memory_gb", memory_gb, 0.25, 1_024)
        self.engine = engine
        self.seconds = seconds
        self.memory_gb = memory_gb

    @component.output_types(documents=Documents)
    def run(self, documents: Documents) -> dict[str, Documents]:
        if not any(isinstance(each, SourceFile) for each in documents.items):
            return {"documents": documents}
        # Each trial takes them: they are put together once a process, not read from the store again.
        key = self._make_key(documents)
        made, failed = self.store.get_object("documents read", key, lambda: self._build_documents(documents), KEPT)
        if failed:
            told = "; ".join(f"{each.name}: {each.error}" for each in failed[:NAMED])
            more = f"; … {len(failed) - NAMED} more" if len(failed) > NAMED else ""
            self.notices.report_once(
                f"parser={self.engine}: {len(failed)} of {len(documents.items)} files gave no text: {told}{more}",
                about=f"parser {self.engine}",
            )
        return {"documents": made}

    def _build_documents(self, documents: Documents) -> tuple[Documents, list[ReadFile]]:
        """The documents as they were read, and the files that gave no text."""
        files = self.read_files(documents)
        made = {each.name: build_document(each.name, each.parsed) for each in files}
        items = tuple(made.get(each.id, each) for each in documents.items)
        # What is made of these must not pass for what is made of all of them the next time.
        lost = [each.name for each in files if each.momentary]
        key = compute_key(self._make_key(documents), lost) if lost else self._make_key(documents)
        read = Documents(items, key, sum(each.seconds for each in files))
        return read, [each for each in files if each.error]

    def _make_key(self, documents: Documents) -> str:
        files = (each for each in documents.items if isinstance(each, SourceFile))
        return compute_key("parsed", sorted({self._identify(each) for each in files}), documents.key)

    def read_files(self, documents: Documents) -> tuple[ReadFile, ...]:
        """What is made of those documents that are files, in their order."""
        files = [each for each in documents.items if isinstance(each, SourceFile)]
        momentary: Sequence[bool] = [False] * len(files)
        try:
            key = self._make_key(documents)
            columns = self.store.get_table("corpus", key, partial(self._parse_all, files)).columns
        except _Unfinished as found:
            # Not kept as a whole; what was read of it is.
            columns, momentary = found.columns, found.momentary
        parsed = (Parsed.from_json(json.loads(text)) for text in columns["parsed"])
        rows = zip(files, parsed, columns["errors"], columns["seconds"], momentary, strict=True)
        return tuple(ReadFile(file.id, text, error, float(took), again) for file, text, error, took, again in rows)

    def _identify(self, file: SourceFile) -> str:
        """What the text of a file depends on beside its bytes."""
        ending = PurePosixPath(file.id).suffix.lower()
        return compute_key(ending, identify_converter(ending, self.engine), self.seconds, self.memory_gb)

    def _parse_all(self, files: Sequence[SourceFile]) -> Columns:
        """A row a file: what was made of it as JSON, why nothing was, and the seconds that it took.

        Raises _Unfinished with them where a file may give a text the next time.
        """
        count = max(1, min(len(files), os.cpu_count() or 1))
        rows = []
        with (
            track(f"parser={self.engine}: files read", len(files)) as advance,
            ThreadPoolExecutor(count) as threads,
            Pool(count, self.seconds, int(self.memory_gb * 1024)) as pool,
        ):
            for row in threads.map(partial(self._parse, pool), files):
                rows.append(row)
                advance(1)
        parsed, errors, seconds, momentary = zip(*rows, strict=True)
        columns: Columns = {"parsed": list(parsed), "errors": list(errors), "seconds": np.array(seconds)}
        if any(momentary):
            raise _Unfinished(columns, momentary)
        return columns

    def _parse(self, pool: Pool, file: SourceFile) -> tuple[str, str, float, bool]:
        """What was made of a file as JSON, why nothing was, its seconds, and whether the next time may be different."""

        def columns() -> Columns:
            try:
                return {"parsed": [_format(pool.parse(file.path, file.digest, self.engine))], "errors": [""]}
            except MomentaryError:
                # An UnreadableFileError, too, but nothing of it may be kept.
                raise
            except UnreadableFileError as error:
                return {"parsed": [_format(Parsed(""))], "errors": [str(error)]}

        # By the content: the same bytes under another name are read once.
        try:
            table = self.store.get_table("parsed", compute_key(file.digest, self._identify(file)), columns)
        except MomentaryError as error:
            return _format(Parsed("")), str(error), 0.0, True
        return table.columns["parsed"][0], table.columns["errors"][0], table.seconds, False


class _Unfinished(Exception):  # noqa: N818 (no error: it only takes what is not kept past the store)
    """Columns that the store is not to keep, and which of their rows may be different the next time."""

    def __init__(self, columns: Columns, momentary: Sequence[bool]) -> None:
        super().__init__("some files were not read this time")
        self.columns, self.momentary = columns, momentary


def _format(parsed: Parsed) -> str:
    return json.dumps(parsed.to_json())


def build_document(name: str, parsed: Parsed) -> Document:
    """The document that a file gives."""
    # A title that only repeats the beginning adds nothing to find it by.
    title = "" if parsed.text.startswith(parsed.title) else parsed.title
    return Document(name, parsed.text, title, parsed.marks)
