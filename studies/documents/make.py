"""200 files of many formats, made here and found in installed packages, read by each parser: `README.md`.

python studies/documents/make.py [--parsers plain pdfminer markitdown docling]

What is made is the packaged Python reference, set as PDF (in one column and in two, by fpdf2, which this needs), docx,
pptx, xlsx and epub, so every word of it is known: 20 quotes of 8 to 20 words a PDF are looked for. What is found are
the first files by name of each text format below the environment's packages. A dozen are broken in the ways that files
are.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from machine import describe_processor  # noqa: E402 (it lies beside the folders of studies)

from rag_opt.cli.documents import Reading, read_folder  # noqa: E402
from rag_opt.components.splitters.chunkers import SentenceSplitter  # noqa: E402
from rag_opt.components.splitters.structure import HeadingSplitter, PageSplitter  # noqa: E402
from rag_opt.datasets import python_docs  # noqa: E402
from rag_opt.documents.quotes import find_quote  # noqa: E402
from rag_opt.records.documents import HEADING, Document, Documents, Quote  # noqa: E402
from tests.services import files  # noqa: E402 (the same small files as in the tests)

MADE = {"pdf": 40, "docx": 20, "pptx": 10, "xlsx": 10, "epub": 10}
FOUND = {".md": 25, ".rst": 15, ".txt": 25, ".html": 8, ".csv": 8, ".json": 15}
QUOTES = 20
LARGEST, MANY = 2_000_000, 5


def set_pdf(title: str, text: str, columns: int, gutter: float) -> bytes:
    """The text as a PDF, its title in the outline; columns are so many millimetres apart."""
    from fpdf import FPDF

    page = FPDF(format="A4")
    page.set_font("Times", size=10)
    page.add_page()
    page.start_section(title)
    shown = text.encode("latin-1", "replace").decode("latin-1")
    page.set_font(style="B", size=14)
    page.cell(text=title, new_x="LMARGIN", new_y="NEXT")
    page.set_font("Times", size=10)
    with page.text_columns(ncols=columns, text_align="J", gutter=gutter) as flow:
        flow.write(shown)
    return bytes(page.output())


def make_file(kind: str, place: int, document: Document) -> bytes:
    """A document of the reference in a format."""
    title, text = document.title or document.id, document.text
    paragraphs = [each for each in text.split("\n\n") if each.strip()]
    if kind == "pdf":
        return set_pdf(title, text, 1 + place % 2, 4 if place % 4 == 1 else 8)
    if kind == "docx":
        return files.make_docx([("Heading 1", title), *(("Normal", each) for each in paragraphs)])
    if kind == "pptx":
        return files.make_pptx([(f"{title} {n}", each) for n, each in enumerate(paragraphs[:12], 1)])
    if kind == "xlsx":
        return files.make_xlsx({"Sheet": [["number", "text"], *enumerate(paragraphs, 1)]})
    safe = [each.replace("&", "&amp;").replace("<", "&lt;") for each in paragraphs]
    return files.make_epub("Reference", [f"<h1>Chapter</h1>{''.join(f'<p>{each}</p>' for each in safe)}"])


def make_broken() -> dict[str, bytes]:
    """Files that are not what they should be, and what is said of each."""
    pdf = files.make_pdf([["A page of text."] * 30] * 3)
    return {
        "encrypted.pdf": files.encrypt_pdf(pdf, "secret"),
        "truncated.pdf": pdf[: len(pdf) // 3],
        "scanned.pdf": files.make_pdf([[], []]),
        "html.pdf": b"<html><body>Not found</body></html>",
        "bomb.xlsx": files.make_bomb(400),
        "text.docx": b"This is plain text under a name that it should not have.",
        "old.docx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(5_000),
        "cut.pptx": files.make_pptx([("Title", "Text")])[:9_000],
        "binary.txt": bytes(range(256)) * 200,
        "deep.json": b"[" * 200_000,
        "cut.jsonl": b'{"a": 1}\n{"b": ',
        "mixed.txt": "Größe".encode() + " und Länge".encode("latin-1") * 20,
        "no_book.epub": files.make_docx([("Normal", "This is a document.")]),
        "endless.md": b"# Heading\n\n" * 100_000,
    }


def fill_folder(folder: Path, reference: Sequence[Document]) -> dict[str, Document]:
    """Write all files; gives the documents that were set as PDF, by name."""
    printed: dict[str, Document] = {}
    documents = [each for each in reference if len(each.text) > 600]
    for kind, count in MADE.items():
        for place in range(count):
            document, name = documents[place % len(documents)], f"made/{kind}{place}.{kind}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(make_file(kind, place, document))
            if kind == "pdf":
                printed[name] = document
    packages = [Path(place) for place in sys.path if place.endswith("site-packages")]
    for ending, count in FOUND.items():
        everything = (path for place in packages for path in sorted(place.rglob(f"*{ending}")))
        found = (path for path in everything if 200 < path.stat().st_size < LARGEST)
        for place, path in zip(range(count), found, strict=False):
            (folder / f"found{place}{ending}").write_bytes(path.read_bytes())
    for name, data in make_broken().items():
        (folder / f"broken_{name}").write_bytes(data)
    return printed


def draw_quotes(printed: dict[str, Document]) -> list[Quote]:
    """Words in a row of each document, drawn at random, such as its PDF can show."""
    draw, quotes = random.Random(0), []
    for name, document in printed.items():
        words = document.text.encode("latin-1", "replace").decode("latin-1").split()
        for _ in range(QUOTES):
            count = draw.randint(8, 20)
            start = draw.randrange(max(1, len(words) - count))
            quotes.append(Quote(name, " ".join(words[start : start + count])))
    return quotes


def count_chunks(name: str, documents: Sequence[Document]) -> tuple[int, int]:
    """Chunks of three splitters, and how many of them are not what stands at their place."""
    corpus, total, wrong = Documents(tuple(documents), name), 0, 0
    for splitter in (SentenceSplitter(100, 0), HeadingSplitter(100, 0), PageSplitter(200, 0)):
        chunks = splitter.run(documents=corpus)["chunks"]
        rows = zip(chunks.document_rows, chunks.starts, chunks.ends, chunks.texts, strict=True)
        total += len(chunks)
        wrong += sum(documents[row].text[start:end] != text or not text.strip() for row, start, end, text in rows)
    return total, wrong


def describe(name: str, reading: Reading, quotes: Sequence[Quote], seconds: float, again: float) -> list[str]:
    """A row of the table."""
    known = dict(zip((each.name for each in reading.files), reading.documents, strict=True))
    exact = sum(quote.text in known[quote.document_id].text for quote in quotes)
    found = sum(find_quote(known[quote.document_id], quote) is not None for quote in quotes)
    read = [each for each in reading.files if not each.error]
    headings = [(doc, m) for doc in reading.documents for m in doc.marks if m.kind == HEADING]
    astray = sum("".join(m.name.split()) not in "".join(doc.text[m.start : m.end].split()) for doc, m in headings)
    total, wrong = count_chunks(name, [doc for doc in reading.documents if doc.text.strip()])
    return [
        f"{len(reading.files)}",
        f"{len(read)}",
        f"{len(reading.files) - len(read)}",
        f"{exact / len(quotes):.1%}",
        f"{found / len(quotes):.1%}",
        f"{total - wrong:,} of {total:,}",
        f"{len(headings) - astray:,} of {len(headings):,}",
        f"{seconds:.1f}",
        f"{again:.1f}",
    ]


def group_errors(errors: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    """The files by parser and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, file, why in errors:
        found.setdefault((name, why), []).append(file)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parsers", nargs="+", default=["plain", "pdfminer"])
    given = parser.parse_args()
    heads = ["parser", "files", "read", "named", "quotes of PDF as written", "found", "chunks at their place"]
    heads += ["headings at theirs", "seconds", "again"]
    rows, errors = [], list[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "docs"
        printed = fill_folder(folder, python_docs.load().documents)
        quotes = draw_quotes(printed)
        for name in given.parsers:
            words = [f"parser={name}", f"store.path={place}/store"]
            start = time.perf_counter()
            reading = read_folder(folder, words)[1][0]
            seconds = time.perf_counter() - start
            kept = len(list((Path(place) / "store" / "parsed").iterdir()))
            start = time.perf_counter()
            read_folder(folder, words)
            again = time.perf_counter() - start
            assert kept == len(list((Path(place) / "store" / "parsed").iterdir())), "the second time nothing is read"
            rows.append([name, *describe(name, reading, quotes, seconds, again)])
            errors += [(name, each.name, each.error) for each in reading.files if each.error]
            print(rows[-1], flush=True)
    out = io.StringIO()
    print(f"| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}", file=out)
    for row in rows:
        print(f"| {' | '.join(row)} |", file=out)
    print("\nNamed:\n\n| parser | file | why |\n| --- | --- | --- |", file=out)
    for (name, why), files_of in group_errors(errors).items():
        told = ", ".join(files_of) if len(files_of) < MANY else f"{len(files_of)} such as {files_of[0]}"
        print(f"| {name} | {told} | {why.replace('|', '/')} |", file=out)
    print(f"\nMeasured on {describe_processor()}.", file=out)
    (HERE / "README.md").write_text(out.getvalue(), "utf-8")


if __name__ == "__main__":
    main()
