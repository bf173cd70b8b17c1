"""Plain text and what is written in it: Markdown, reStructuredText, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from rag_opt.documents.parsed import Parsed, UnreadableFileError, Writer
from rag_opt.records.documents import HEADING, Mark

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
NOT_TITLE = re.compile(r"\s*([-*+>|]|\d+[.)])")
"""How a line begins that no underline makes a heading of: an item, a quote, a row."""
UNDERLINE = re.compile(r"([=\-~^\"'`#*+:.<>_])\1{2,}[ \t]*$")
MARKDOWN_LEVELS = {"=": 1, "-": 2}

BINARY = 0.02
"""The share of control characters from which a file is no text."""


def decode_text(data: bytes) -> str:
    """The text of these bytes, in whatever encoding; raises UnreadableFileError where they are no text.

    UTF-8 and a byte order mark decide; anything else is guessed by charset-normalizer.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return normalise_text(data.decode(encoding, "replace"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data).best()
        if best is None:
            raise UnreadableFileError("its encoding can't be told: it is no text") from None
        text = str(best)
    controls = sum(1 for letter in text[:100_000] if ord(letter) < 32 and letter not in "\t\n\r\f\v")
    if controls > BINARY * max(1, len(text[:100_000])):
        raise UnreadableFileError("it is no text: its bytes are not those of a written language")
    return normalise_text(text)


def normalise_text(text: str) -> str:
    """The text with one kind of line end, and no characters that no reader sees."""
    joined = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return joined.lstrip("\ufeff")


def parse_text(data: bytes) -> Parsed:
    """A text file as it is."""
    return Parsed(decode_text(data))


def parse_markdown(data: bytes) -> Parsed:
    """A Markdown file as it is written, with its headings."""
    return mark_headings(decode_text(data))


def mark_headings(text: str) -> Parsed:
    """The text with its Markdown headings, # and underlined; those within fenced code are none."""
    body = _skip_front_matter(text)
    marks = tuple(_find_markdown_headings(text, body))
    return Parsed(text, marks, next((mark.name for mark in marks if mark.level == 1), ""))


def _skip_front_matter(text: str) -> int:
    """Where a Markdown text begins after its YAML head; 0 without one."""
    if not text.startswith("---\n"):
        return 0
    # From the first line's own end, so that an empty head is found, too.
    end = text.find("\n---\n", 3)
    return end + 5 if end >= 0 else 0


def _find_markdown_headings(text: str, start: int) -> Iterator[Mark]:
    fence, place, previous = "", start, (start, "")
    for line in text[start:].split("\n"):
        opened = FENCE.match(line)
        if opened and not fence:
            fence = opened[1]
        # What closes a fence is at least as long as what opened it, and has no words behind it (CommonMark 4.5).
        elif fence and line.strip().startswith(fence) and not line.strip(" `~"):
            fence = ""
        elif not fence:
            found, under = ATX.match(line), UNDERLINE.match(line)
            # Not within the pattern, which would take very long over a line of many spaces.
            name = found[2].rstrip().rstrip("#").rstrip() if found else ""
            if found and name:
                yield Mark(HEADING, place, place + len(line), name, len(found[1]))
            elif under and under[1] in MARKDOWN_LEVELS and _can_be_title(previous[1]):
                yield Mark(HEADING, previous[0], place + len(line), previous[1].strip(), MARKDOWN_LEVELS[under[1]])
        previous = place, line if not opened else ""
        place += len(line) + 1


def _can_be_title(line: str) -> bool:
    return bool(line.strip()) and not (ATX.match(line) or NOT_TITLE.match(line))


def parse_rst(data: bytes) -> Parsed:
    """A reStructuredText file as it is written, with its headings: levels in the order in which they first appear."""
    text = decode_text(data)
    levels: dict[str, int] = {}
    marks, place, before = list[Mark](), 0, list[tuple[int, str]]()
    for line in text.split("\n"):
        under = UNDERLINE.match(line)
        if under and before:
            start, words = before[-1]
            # By its specification an underline is at least as long as the title.
            if words.strip() and not UNDERLINE.match(words) and len(line.rstrip()) >= len(words.rstrip()):
                over = len(before) > 1 and before[-2][1].rstrip() == line.rstrip()
                # With a line above the title as well, the same character is another style, and so another level.
                level = levels.setdefault(f"{under[1]}{over}", len(levels) + 1)
                begins = before[-2][0] if over else start
                marks.append(Mark(HEADING, begins, place + len(line), words.strip(), level))
        before = [*before[-1:], (place, line)]
        place += len(line) + 1
    return Parsed(text, tuple(marks), marks[0].name if marks else "")


def parse_csv(data: bytes) -> Parsed:
    """A table: a line a row, each cell after its column's name, so that a row can be found by itself."""
    text = decode_text(data)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:20_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    # By default csv refuses a cell of more than 131,072 characters.
    csv.field_size_limit(10_000_000)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), dialect) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UnreadableFileError(f"its rows can't be told apart: {error}") from error
    writer = Writer()
    write_rows(writer, rows)
    return writer.finish()


def write_rows(writer: Writer, rows: list[list[str]], name: str = "") -> None:
    """Append a table, a line a row, each cell after the name of its column; the first row has these names."""
    heads, body = (rows[0], rows[1:]) if len(rows) > 1 else ([], rows)
    lines = [
        "; ".join(
            f"{heads[place].strip()}: {' '.join(cell.split())}"
            if place < len(heads) and heads[place].strip()
            else " ".join(cell.split())
            for place, cell in enumerate(row)
            if cell.strip()
        )
        for row in body
    ]
    writer.add_table([[line] for line in lines], name)


def parse_json(data: bytes) -> Parsed:
    """A JSON value, a line a leaf with the path to it."""
    text = decode_text(data)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"it is no JSON: {error}") from error
    return Parsed("\n".join(_format_leaves(value)))


def parse_json_lines(data: bytes) -> Parsed:
    """JSON values, one a line: a paragraph each."""
    writer = Writer()
    for number, line in enumerate(decode_text(data).split("\n"), 1):
        if line.strip():
            try:
                writer.add("\n".join(_format_leaves(json.loads(line))))
            except (ValueError, RecursionError) as error:
                raise UnreadableFileError(f"line {number} is no JSON: {error}") from error
    return writer.finish()


def _format_leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _format_leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _format_leaves(part, path)
    elif value is not None and str(value).strip():
        yield f"{path}: {value}" if path else str(value)
