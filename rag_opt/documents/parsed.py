"""What a converter makes of a file: one text, its parts by their characters, and what it had to leave out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag_opt.records.documents import HEADING, PAGE, TABLE, Mark


class UnreadableFileError(Exception):
    """A file that gives no text, with the reason in the user's words."""


class MomentaryError(UnreadableFileError):
    """A file that gave no text this time: what is behind it may be mended, so it is not kept of the file's content."""


@dataclass(frozen=True)
class Parsed:
    """A file's text and its parts, in the order of their beginnings; `notes` say what was left out."""

    text: str
    marks: tuple[Mark, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        marks = [[mark.kind, mark.start, mark.end, mark.name, mark.level] for mark in self.marks]
        return {**asdict(self), "marks": marks, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Parsed:
        """Back from plain containers."""
        marks = tuple(Mark(*each) for each in given["marks"])
        return cls(given["text"], marks, given["title"], tuple(given["notes"]))


class Writer:
    """Puts a text together, paragraph by paragraph, and keeps where each part of it stands."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._marks: list[Mark] = []
        self._page: tuple[int, str] | None = None
        self.title = ""
        self.notes: list[str] = []

    def add(self, text: str, headings: Sequence[tuple[str, int]] = ()) -> int:
        """Append a paragraph, a blank line before it; gives where it begins. Nothing is done with an empty one.

        `headings` are words that stand in it, with their levels, in their order; those that do not are passed over.
        """
        clean = text.strip("\n").rstrip()
        if not clean.strip():
            return self._length
        if self._pieces:
            self._append("\n\n")
        start = self._length
        self._append(clean)
        self._mark_headings(clean, start, headings)
        return start

    def _mark_headings(self, text: str, start: int, headings: Sequence[tuple[str, int]]) -> None:
        place = 0
        for words, level in headings:
            # However the parser has broken its lines.
            pattern = r"\s+".join(map(re.escape, words.split()))
            found = re.compile(pattern, re.IGNORECASE).search(text, place) if pattern else None
            if found:
                place = found.end()
                name = " ".join(words.split())
                self._marks.append(Mark(HEADING, start + found.start(), start + place, name, level))

    def add_heading(self, text: str, level: int) -> None:
        """Append a heading, on a line of its own; the first one of the highest level is the title."""
        words = " ".join(text.split())
        if not words:
            return
        start = self.add(words)
        self._marks.append(Mark(HEADING, start, self._length, words, max(1, level)))

    def add_table(self, rows: Sequence[Sequence[str]], name: str = "") -> None:
        """Append a table, a line a row, cells apart by bars; empty rows are left out."""
        lines = [" | ".join(" ".join(cell.split()) for cell in row) for row in rows]
        kept = [line for line in lines if line.strip(" |")]
        if kept:
            start = self.add("\n".join(kept))
            self._marks.append(Mark(TABLE, start, self._length, name))

    def add_text(self, parsed: Parsed) -> None:
        """Append all of another text, with its parts."""
        start = self.add(parsed.text)
        # What `add` strips stands at the beginning, where no part begins.
        lost = len(parsed.text) - len(parsed.text.lstrip("\n"))
        moved = [(mark, start - lost) for mark in parsed.marks]
        self._marks += [Mark(m.kind, m.start + by, m.end + by, m.name, m.level) for m, by in moved]

    def begin_page(self, name: str) -> None:
        """What comes from now on is on this page."""
        self._end_page()
        self._page = self._length, name

    def finish(self) -> Parsed:
        """The whole text."""
        self._end_page()
        # Of those that begin at one place the longest first: a page before the heading on it.
        marks = sorted(self._marks, key=lambda mark: (mark.start, -mark.end))
        return Parsed("".join(self._pieces), tuple(marks), self.title, tuple(self.notes))

    def _append(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def _end_page(self) -> None:
        if self._page is not None:
            start, name = self._page
            # The blank line in front of a page is of no page.
            begins = start + 2 if start and start < self._length else start
            self._marks.append(Mark(PAGE, min(begins, self._length), self._length, name))
            self._page = None
