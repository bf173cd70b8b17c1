"""Which converter reads which file, and under what name its result is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata

from rag_opt.documents import layouts, mail, office, pdf, texts, web
from rag_opt.documents.parsed import Parsed, UnreadableFileError

Converter = Callable[[bytes], Parsed]

PLAIN: Mapping[str, tuple[Converter, str]] = {
    ".pdf": (pdf.parse_by_pypdf, "pypdf"),
    ".html": (web.parse_html, "trafilatura"),
    ".htm": (web.parse_html, "trafilatura"),
    ".xhtml": (web.parse_html, "trafilatura"),
    ".md": (texts.parse_markdown, ""),
    ".markdown": (texts.parse_markdown, ""),
    ".txt": (texts.parse_text, ""),
    ".rst": (texts.parse_rst, ""),
    ".docx": (office.parse_docx, "python-docx"),
    ".pptx": (office.parse_pptx, "python-pptx"),
    ".xlsx": (office.parse_xlsx, "openpyxl"),
    ".csv": (texts.parse_csv, ""),
    ".tsv": (texts.parse_csv, ""),
    ".json": (texts.parse_json, ""),
    ".jsonl": (texts.parse_json_lines, ""),
    ".epub": (web.parse_epub, "trafilatura"),
    ".eml": (mail.parse_mail, "trafilatura"),
}
"""By ending the converter, and the package that does its work ("": this one)."""

MARKITDOWN = (".pdf", ".html", ".htm", ".docx", ".pptx", ".xlsx", ".csv", ".epub")
DOCLING = (".pdf", ".html", ".htm", ".docx", ".pptx", ".xlsx")
"""What these read; every other format is read as by `plain`."""

FORM = 1
"""The version of what the converters here make: part of the key of every result."""

FORMS: Mapping[str, int] = {"pdfminer.six": 2}
"""The same of those packages whose settings here have changed."""

EXTRA: Mapping[str, Mapping[str, tuple[Converter, str]]] = {
    "plain": {},
    "pdfminer": {".pdf": (pdf.parse_by_pdfminer, "pdfminer.six")},
    "markitdown": {each: (partial(layouts.parse_by_markitdown, ending=each), "markitdown") for each in MARKITDOWN},
    # Of docling itself, which this package carries: the one called docling only names it.
    "docling": {each: (partial(layouts.parse_by_docling, ending=each), "docling-slim") for each in DOCLING},
}
ENGINES = tuple(EXTRA)

SURROGATE = re.compile("[\ud800-\udfff]")
OLD = (".doc", ".ppt", ".xls")


def find_converter(ending: str, engine: str) -> tuple[Converter, str]:
    """What reads files of this ending, and the package; raises UnreadableFileError where nothing does."""
    try:
        return {**PLAIN, **EXTRA[engine]}[ending.lower()]
    except KeyError:
        known = ", ".join(each[1:] for each in PLAIN)
        advice = (
            "save it anew, without the old format" if ending.lower() in OLD else f"there are converters for {known}"
        )
        raise UnreadableFileError(f"nothing here reads {ending or 'a file without an ending'}: {advice}") from None


def identify_converter(ending: str, engine: str) -> str:
    """The converter's name and version, by which its results are kept."""
    package = find_converter(ending, engine)[1]
    # What is not installed has no version, and is refused when a file needs it.
    version = f" {metadata.version(package)}" if package and _is_installed(package) else ""
    return f"{FORMS.get(package, FORM)} {package}{version}"


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def parse_file(data: bytes, ending: str, engine: str) -> Parsed:
    """The text of a file; raises UnreadableFileError where it has none, whatever is wrong with it."""
    if not data:
        raise UnreadableFileError("it is empty")
    parsed = find_converter(ending, engine)[0](data)
    if not parsed.text.strip():
        raise UnreadableFileError("no text was found in it")
    if not SURROGATE.search(parsed.text):
        return parsed
    # Lone halves of characters, which no database takes; one for one, so that all places stay.
    return Parsed(SURROGATE.sub("\ufffd", parsed.text), parsed.marks, parsed.title, parsed.notes)
