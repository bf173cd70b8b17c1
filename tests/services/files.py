"""Files of many formats, made as they are needed: small, and with known words in known places."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path


def make_pdf(pages: Sequence[Sequence[str]], spacing: float = 0) -> bytes:
    """A PDF with these lines on its pages, in Helvetica, as the standard (ISO 32000) lays it out; latin-1 only.

    `spacing`: points between words beside their spaces, as in lines that are justified.
    """
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        shown = "".join(f"({line.replace('(', chr(92) + '(').replace(')', chr(92) + ')')}) Tj T*\n" for line in lines)
        content = f"BT /F1 11 Tf {spacing} Tw 14 TL 60 780 Td\n{shown}ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    out, places = io.BytesIO(b""), []
    out.write(b"%PDF-1.4\n")
    for number, each in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, each))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def encrypt_pdf(data: bytes, password: str) -> bytes:
    """The same, unreadable without the password."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(password, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def make_docx(blocks: Sequence[tuple[str, str]], table: Sequence[Sequence[str]] = ()) -> bytes:
    """A document of (style, text), such as ("Heading 1", "Leave"), and a table behind them."""
    from docx import Document

    document = Document()
    for style, text in blocks:
        document.add_paragraph(text, style=style)
    if table:
        made = document.add_table(len(table), len(table[0]))
        for row, cells in zip(made.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def make_pptx(slides: Sequence[tuple[str, str]]) -> bytes:
    """A presentation of (title, text)."""
    from pptx import Presentation

    made = Presentation()
    for title, text in slides:
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def make_xlsx(sheets: dict[str, Sequence[Sequence[object]]]) -> bytes:
    """A workbook of these rows by sheet."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def make_epub(title: str, chapters: Sequence[str]) -> bytes:
    """A book of these chapters, each a body of XHTML, in their order."""
    out = io.BytesIO()
    names = [f"chapter{number}.xhtml" for number in range(len(chapters))]
    items = "".join(
        f'<item id="c{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(names)))
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OPS/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<dc:title>{title}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>",
        )
        for name, body in zip(names, chapters, strict=True):
            archive.writestr(f"OPS/{name}", f"<html><head><title>{title}</title></head><body>{body}</body></html>")
    return out.getvalue()


def make_bomb(megabytes: int) -> bytes:
    """A workbook by its ending, which unpacks to so much."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/workbook.xml", "w") as file:
        for _ in range(megabytes):
            file.write(b"\0" * 1_000_000)
    return out.getvalue()


MAIL = b"""From: ann@example.org
To: bob@example.org
Date: Mon, 2 Nov 2026 10:00:00 +0000
Subject: The boiler
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

The boiler on the third floor is serviced in May.
"""

LEAVE = (("Heading 1", "Leave"), ("Normal", "Staff may take 25 days of leave a year."), ("Heading 2", "Carrying over"))
LEAVE = (*LEAVE, ("Normal", "Up to five days can be carried over until March."))


def write_office(folder: Path) -> list[dict[str, object]]:
    """A folder of files of many formats, and questions whose answers are quotes from them."""
    article = (
        "<p>"
        + "Visitors park behind the building, next to the old bicycle shed. " * 4
        + "The barrier opens at seven.</p>"
    )
    files = {
        "manual.pdf": make_pdf(
            [["The pump must be bled", "every six weeks."], ["Spare valves lie in", "cabinet nine."]]
        ),
        "leave.docx": make_docx(LEAVE, [["Grade", "Days"], ["A", "25"]]),
        "plans/roadmap.pptx": make_pptx(
            [("Road map", "The new office opens in June 2027."), ("Costs", "It costs two million.")]
        ),
        "prices.xlsx": make_xlsx({"Prices": [["Item", "Price"], ["Stapler", 12], ["Lamp", 40]], "Empty": []}),
        "handbook.md": b"# Handbook\n\nThe handbook tells how we work.\n\n## Hours\n\nCore hours are from ten to three.\n",
        "parking.html": f"<html><head><title>Parking</title></head><body><nav>Home</nav><article><h1>Parking</h1>{article}</article></body></html>".encode(),
        "kantine.txt": "Die Kantine schließt um zwei Uhr. Über Änderungen wird informiert.".encode("latin-1"),
        "rooms.csv": b"room;seats\nBlue room;12\nGreen room;30\n",
        "guide.rst": b"Guide\n=====\n\nBefore\n------\n\nSwitch the mains off before the lid is lifted.\n",
        "state.json": json.dumps({"site": {"name": "North", "lifts": [{"name": "A", "load": "900 kg"}]}}).encode(),
        "log.jsonl": b'{"day": "Monday", "said": "The alarm is tested on Mondays."}\n',
        "book.epub": make_epub("House rules", ["<h1>Noise</h1><p>Nobody drills after eight in the evening.</p>"]),
        "boiler.eml": MAIL,
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    quotes = {
        "How often must the pump be bled?": ("manual.pdf", "bled every six weeks", "1"),
        "Where are the spare valves?": ("manual.pdf", "cabinet nine", "2"),
        "How many days of leave are there?": ("leave.docx", "25 days of leave", ""),
        "When does the new office open?": ("plans/roadmap.pptx", "opens in June 2027", "1"),
        "What does a lamp cost?": ("prices.xlsx", "Item: Lamp; Price: 40", ""),
        "When are core hours?": ("handbook.md", "from ten to three", ""),
        "When does the barrier open?": ("parking.html", "The barrier opens at seven", ""),
        "Wann schließt die Kantine?": ("kantine.txt", "schließt um zwei Uhr", ""),
        "How many seats has the Green room?": ("rooms.csv", "room: Green room; seats: 30", ""),
        "What is done before the lid is lifted?": ("guide.rst", "Switch the mains off", ""),
        "What load does lift A take?": ("state.json", "900 kg", ""),
        "When is the alarm tested?": ("log.jsonl", "tested on Mondays", ""),
        "Until when may one drill?": ("book.epub", "Nobody drills after eight", ""),
        "When is the boiler serviced?": ("boiler.eml", "serviced in May", ""),
    }
    return [
        {"question": asked, "answer": quote, "evidence": [{"doc_id": name, "quote": quote, "page": page or None}]}
        for asked, (name, quote, page) in quotes.items()
    ]
