"""Pages: HTML, and books made of it."""

from __future__ import annotations

import io
import logging
import posixpath
import xml.etree.ElementTree as ET
from functools import partial
from typing import Any
from urllib.parse import unquote

from rag_opt.documents.archives import open_archive
from rag_opt.documents.parsed import Parsed, UnreadableFileError, Writer
from rag_opt.documents.texts import decode_text, mark_headings

OCF, OPF = "{urn:oasis:names:tc:opendocument:xmlns:container}", "{http://www.idpf.org/2007/opf}"


def parse_html(data: bytes) -> Parsed:
    """The main text of a page, as Markdown, without menus and footers; all of its text where no main part is found."""
    import trafilatura
    from lxml import html
    from lxml.etree import ParserError

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    # Only to refuse what is no text: which encoding it has, the page itself may say.
    decode_text(data)
    tree = trafilatura.load_html(data)
    about = None if tree is None else trafilatura.extract_metadata(tree)
    extract = partial(
        trafilatura.extract, output_format="markdown", include_tables=True, include_formatting=True, favor_recall=True
    )
    found = None if tree is None else extract(tree)
    if not found:
        # Too short a page for what tells a main part from the rest.
        try:
            whole = html.fromstring(data).text_content()
        except (ParserError, ValueError) as error:
            raise UnreadableFileError(f"it is no HTML: {error}") from error
        found = "\n".join(" ".join(line.split()) for line in whole.split("\n") if line.strip())
    parsed = mark_headings(found)
    return Parsed(parsed.text, parsed.marks, (about and about.title) or parsed.title)


def parse_epub(data: bytes) -> Parsed:
    """A book: its chapters in the order in which they are read, each with its headings."""
    archive, writer = open_archive(data), Writer()
    with archive:
        root, order, writer.title = _read_package(archive)
        for number, name in enumerate(order, 1):
            # The package names its files by URLs relative to its folder, the archive by plain paths.
            path = posixpath.normpath(posixpath.join(root, unquote(name)))
            try:
                chapter = parse_html(archive.read(path))
            except (KeyError, UnreadableFileError) as error:
                writer.notes.append(f"chapter {number} was not read: {error}")
                continue
            writer.begin_page(str(number))
            writer.add_text(chapter)
    return writer.finish()


def _read_package(archive: Any) -> tuple[str, list[str], str]:
    """The folder that names are relative to, the files in their order, and the title; as OCF and OPF 3.3 say."""
    try:
        container = ET.parse(io.BytesIO(archive.read("META-INF/container.xml")))  # noqa: S314 (in a process of its own)
        path = container.find(f".//{OCF}rootfile").attrib["full-path"]  # type: ignore[union-attr]
        package = ET.parse(io.BytesIO(archive.read(path)))  # noqa: S314
        files = {item.attrib["id"]: item.attrib["href"] for item in package.iter(f"{OPF}item")}
        order = [files[item.attrib["idref"]] for item in package.iter(f"{OPF}itemref")]
    except (KeyError, AttributeError, ET.ParseError) as error:
        raise UnreadableFileError(f"it is no EPUB: {type(error).__name__}: {error}") from error
    title = package.find(".//{http://purl.org/dc/elements/1.1/}title")
    return posixpath.dirname(path), order, (title is not None and title.text) or ""
