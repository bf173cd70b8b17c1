"""Files → texts: what each format gives, where headings, pages and tables stand, and where a quote is found."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.datasets.folder import list_files
from rag_opt.documents.formats import parse_file
from rag_opt.documents.likeness import find_near_copies
from rag_opt.documents.parsed import Parsed, UnreadableFileError, Writer
from rag_opt.documents.quotes import find_evidence, find_quote
from rag_opt.documents.texts import decode_text, mark_headings
from rag_opt.errors import DatasetError
from rag_opt.metrics.evidence import Span, score_evidence
from rag_opt.records.documents import (
    HEADING,
    PAGE,
    TABLE,
    Document,
    Documents,
    Evidence,
    Mark,
    Query,
    Quote,
    find_headings,
    find_page,
)
from rag_opt.records.products import Chunks
from tests.services import files


def marks(parsed: Parsed, kind: str) -> list[tuple[str, str, int]]:
    """(name, characters, level) of the parts of a kind."""
    return [(m.name, parsed.text[m.start : m.end], m.level) for m in parsed.marks if m.kind == kind]


def test_a_document_of_word_keeps_headings_and_tables() -> None:
    parsed = parse_file(files.make_docx(files.LEAVE, [["Grade", "Days"], ["A", "25"]]), ".docx", "plain")
    assert marks(parsed, HEADING) == [("Leave", "Leave", 1), ("Carrying over", "Carrying over", 2)]
    assert marks(parsed, TABLE) == [("", "Grade | Days\nA | 25", 0)]
    assert "25 days of leave a year." in parsed.text


@pytest.mark.parametrize("engine", ["plain", "pdfminer"])
def test_a_pdf_keeps_its_pages(engine: str) -> None:
    data = files.make_pdf([["The pump must be bled", "every six weeks."], ["Spare valves lie in", "cabinet nine."]])
    parsed = parse_file(data, ".pdf", engine)
    pages = marks(parsed, PAGE)
    assert [name for name, _, _ in pages] == ["1", "2"]
    assert "six weeks" in pages[0][1]
    assert "cabinet nine" in pages[1][1]
    assert not pages[1][1].startswith("\n")


def test_words_of_a_justified_line_stay_together() -> None:
    """14 points are more than twice, and less than three times, a letter of 11 points."""
    data = files.make_pdf([["new homes want warm", "pumps once more"]], spacing=14)
    text = " ".join(parse_file(data, ".pdf", "pdfminer").text.split())
    assert text == "new homes want warm pumps once more"


def test_slides_and_sheets_are_pages_with_a_heading() -> None:
    parsed = parse_file(
        files.make_pptx([("Road map", "It opens in June."), ("Costs", "Two million.")]), ".pptx", "plain"
    )
    assert marks(parsed, PAGE) == [("1", "Road map\n\nIt opens in June.", 0), ("2", "Costs\n\nTwo million.", 0)]
    assert [name for name, _, _ in marks(parsed, HEADING)] == ["Road map", "Costs"]
    rows = {"Prices": [["Item", "Price"], ["Lamp", 40]], "Empty": []}
    parsed = parse_file(files.make_xlsx(rows), ".xlsx", "plain")
    assert marks(parsed, PAGE) == [("Prices", "Prices\n\nItem: Lamp; Price: 40", 0)]
    assert marks(parsed, TABLE) == [("Prices", "Item: Lamp; Price: 40", 0)]


def test_a_page_gives_its_main_text_and_its_heading_as_title() -> None:
    article = "<p>" + "Visitors park behind the building, next to the shed. " * 5 + "</p>"
    page = f"<html><head><title>Parking</title></head><body><nav>Home About Imprint</nav><article><h1>Where</h1>{article}</article></body></html>"
    parsed = parse_file(page.encode(), ".html", "plain")
    assert "behind the building" in parsed.text
    assert "Imprint" not in parsed.text
    assert parsed.title == "Where"
    # One that is too short for what finds main texts.
    assert parse_file(b"<p>Ring twice.</p>", ".html", "plain").text.strip() == "Ring twice."


def test_a_book_is_read_in_its_order() -> None:
    data = files.make_epub("House", ["<h1>One</h1><p>First comes this.</p>", "<h1>Two</h1><p>Then comes that.</p>"])
    parsed = parse_file(data, ".epub", "plain")
    assert parsed.title == "House"
    assert parsed.text.index("First comes") < parsed.text.index("Then comes")
    assert [name for name, _, _ in marks(parsed, PAGE)] == ["1", "2"]


def test_a_message_gives_subject_people_and_text() -> None:
    parsed = parse_file(files.MAIL, ".eml", "plain")
    assert parsed.title == "The boiler"
    assert "From: ann@example.org" in parsed.text
    assert "serviced in May" in parsed.text


def test_rows_say_what_their_cells_are() -> None:
    assert (
        parse_file(b"room;seats\nBlue;12\nGreen;30\n", ".csv", "plain").text
        == "room: Blue; seats: 12\nroom: Green; seats: 30"
    )
    parsed = parse_file(b'{"site": {"lifts": [{"load": "900 kg"}]}, "open": true}', ".json", "plain")
    assert parsed.text == "site.lifts.load: 900 kg\nopen: True"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("schließt".encode(), "schließt"),
        ("schließt".encode("utf-8-sig"), "schließt"),
        ("schließt".encode("utf-16"), "schließt"),
        ("Die Kantine schließt um zwölf. Für Gäste gilt das auch.".encode("latin-1"), "schließt um zwölf"),
        ("Столовая закрывается в два часа дня, кроме субботы.".encode("cp1251"), "закрывается в два часа"),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree"),
    ],
)
def test_any_encoding_is_read(data: bytes, text: str) -> None:
    assert text in decode_text(data)


@pytest.mark.parametrize(
    ("data", "ending", "why"),
    [
        (b"", ".txt", "empty"),
        (bytes(range(256)) * 20, ".txt", "no text"),
        (b"%PDF-1.4 nonsense", ".pdf", "damaged"),
        (b"<html>Not found</html>", ".pdf", "no PDF, whatever its ending says"),
        (b"PK\x03\x04 nonsense", ".docx", "damaged"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), ".docx", "encrypted"),
        (b"{'a': 1}", ".json", "no JSON"),
        (b'{"a": 1}\n{"b"', ".jsonl", "line 2 is no JSON"),
        (b"[" * 100_000, ".json", "no JSON"),
        (files.encrypt_pdf(files.make_pdf([["secret"]]), "key"), ".pdf", "needs a password"),
        (files.make_pdf([[], []]), ".pdf", "needs OCR"),
        (files.make_bomb(50), ".xlsx", "times its size"),
        (b"x", ".doc", "save it anew"),
        (b"x", ".xyz", "there are converters for"),
    ],
    ids=(
        "empty binary pdf_cut pdf_html docx_cut ole json_bad jsonl_cut json_deep pdf_encrypted pdf_scanned bomb doc_old unknown"
    ).split(),
)
def test_a_file_without_a_text_is_named_with_the_reason(data: bytes, ending: str, why: str) -> None:
    with pytest.raises(UnreadableFileError, match=why):
        parse_file(data, ending, "plain")


def test_a_pdf_that_only_forbids_printing_is_read() -> None:
    assert "the door" in parse_file(files.encrypt_pdf(files.make_pdf([["Close the door."]]), ""), ".pdf", "plain").text


def test_headings_of_markdown_are_those_that_are_shown() -> None:
    text = "---\ntitle: x\n# no\n---\n# One #\n\nText\n\n```sh\n# a comment\n```\n\nTwo\n===\n\n### Three\n\n#hashtag\n\n- item\n---\n"
    parsed = mark_headings(text)
    assert [(m.name, m.level) for m in parsed.marks][:3] == [("One", 1), ("Two", 1), ("Three", 3)]
    assert "a comment" not in {m.name for m in parsed.marks}
    assert all(parsed.text[m.start : m.end].strip("# \n=-").startswith(m.name.split()[0]) for m in parsed.marks[:3])


def test_levels_of_restructured_text_are_those_of_their_first_use() -> None:
    text = b"=====\nGuide\n=====\n\nBefore\n------\n\nText.\n\nAfter\n-----\n"
    parsed = parse_file(text, ".rst", "plain")
    assert [(m.name, m.level) for m in parsed.marks] == [("Guide", 1), ("Before", 2), ("After", 2)]


def test_what_stands_above_a_character_is_known() -> None:
    parsed = mark_headings("# A\n\nx\n\n## B\n\ny\n\n## C\n\nz\n\n# D\n\nw\n")
    document = Document("d", parsed.text, "", (*parsed.marks, Mark(PAGE, 0, len(parsed.text), "7")))
    above = {letter: find_headings(document, parsed.text.index(f"\n{letter}\n") + 1) for letter in "xyzw"}
    assert above == {"x": ("A",), "y": ("A", "B"), "z": ("A", "C"), "w": ("D",)}
    assert find_page(document, 3) == "7"
    assert find_page(Document("e", "text"), 0) == ""
    assert find_headings(Document("e", "text"), 0) == ()


@given(st.lists(st.tuples(st.sampled_from(["text", "heading", "table", "page"]), st.text(max_size=20)), max_size=12))
def test_every_part_lies_in_the_text_and_holds_its_words(blocks: list[tuple[str, str]]) -> None:
    writer = Writer()
    for kind, text in blocks:
        if kind == "text":
            writer.add(text)
        elif kind == "heading":
            writer.add_heading(text, 2)
        elif kind == "table":
            writer.add_table([[text, "b"], ["", ""]], "t")
        else:
            writer.begin_page(text)
    parsed = writer.finish()
    assert Parsed.from_json(parsed.to_json()) == parsed
    for mark in parsed.marks:
        assert 0 <= mark.start <= mark.end <= len(parsed.text)
        if mark.kind == HEADING:
            assert parsed.text[mark.start : mark.end] == mark.name
    starts = [mark.start for mark in parsed.marks]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("It opens at nine.", "opens at nine", "opens at nine"),
        ("It opens\nat  nine.", "opens at nine", "opens\nat  nine"),
        ("It op-\nens at nine.", "opens at nine", "op-\nens at nine"),
        ("It **opens** at `nine`.", "opens at nine", "opens** at `nine"),
        ("The ﬁle is ready.", "file is ready", "ﬁle is ready"),
        ("IT OPENS AT NINE", "opens at nine", "OPENS AT NINE"),
        ("| Lamp | 40 |", "Lamp 40", "Lamp | 40"),
        ("It opens at ten.", "opens at nine", None),
        ("Straße", "STRASSE", "Straße"),
        ("text", "--", None),
    ],
)
def test_a_quote_is_found_however_a_parser_breaks_its_lines(text: str, quote: str, found: str | None) -> None:
    span = find_quote(Document("d", text), Quote("d", quote))
    assert (None if span is None else text[span[0] : span[1]]) == found


def test_a_quote_is_looked_for_on_its_page_first() -> None:
    text = "the valve\n\nthe  valve\n\nthe valve"
    pages = (Mark(PAGE, 0, 9, "i"), Mark(PAGE, 11, 21, "ii"), Mark(PAGE, 23, 32, "iii"))
    spans = [
        find_quote(Document("d", text, "", pages), Quote("d", "the valve", page))
        for page in ("", "i", "ii", "iii", "x")
    ]
    assert spans == [(0, 9), (0, 9), (11, 21), (23, 32), (0, 9)]


def test_a_quote_that_is_not_there_counts_as_evidence_that_nothing_finds() -> None:
    queries = (Query("1", "a?", quotes=(Quote("d", "present"), Quote("d", "absent"))), Query("2", "b?"))
    found = find_evidence(queries, [Document("d", "it is present")])
    assert found.queries[0].evidence == (Evidence("d", 6, 13), Evidence("d", -6, 0))
    assert found.queries[0].quotes == ()
    assert found.queries[1] is queries[1]
    assert found.format_missing() == "1 of 2 quotes are not in their documents as they were read: 'd: absent'"


def test_texts_that_are_nearly_the_same_are_found() -> None:
    words = [f"word{number}" for number in range(300)]
    other = [*words[:150], "changed", *words[151:]]
    texts = [" ".join(words), "something else entirely, about boilers", " ".join(other), "", " ".join(reversed(words))]
    assert find_near_copies(texts) == [[0, 2]]


def test_a_folder_is_listed_with_what_is_left_out(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "sub" / ".git").mkdir(parents=True)
    (docs / "drafts").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for name in (
        "b.md",
        "sub/a.txt",
        "sub/.hidden.md",
        "sub/.git/config.txt",
        "drafts/d.md",
        "~$open.docx",
        "image.png",
    ):
        (docs / name).write_text(name)
    (docs / "none.md").write_text("")
    (docs / "large.txt").write_bytes(b"x" * 2_000_000)
    (docs / "link.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "inner.md").symlink_to(docs / "b.md")
    (docs / "away").symlink_to(tmp_path / "outside")
    (docs / "loop").symlink_to(docs)
    listing = list_files(docs, ignore=["drafts/"], most_mb=1)
    assert [file.id for file in listing.files] == ["b.md", "inner.md", "sub/a.txt"]
    assert {each.name: each.reason for each in listing.skipped} == {
        "away": "a link out of the folder",
        "image.png": "nothing here reads .png",
        "large.txt": "above dataset.most_mb=1",
        "link.txt": "a link out of the folder",
        "none.md": "empty",
    }
    assert [file.id for file in list_files(docs, include=["sub/", "*.rst"]).files] == ["sub/a.txt"]
    with pytest.raises(DatasetError, match=r"no document in it; left out: .*'image.png \(nothing here reads .png\)'"):
        list_files(docs, include=["*.png"])
    with pytest.raises(DatasetError, match="a folder of documents is expected"):
        list_files(docs / "b.md")


def test_quotes_that_are_lost_count_each_by_itself() -> None:
    query = Query("1", "a?", quotes=(Quote("d", "present"), Quote("d", "absent"), Quote("d", "missing")))
    (found,) = find_evidence((query,), [Document("d", "it is present")]).queries
    chunk = Span("d", 0, 13)
    recall = score_evidence("evidence_recall", 1, [[chunk]], [found.evidence])
    assert recall == pytest.approx([7 / (7 + 6 + 7)])


@pytest.mark.parametrize(
    "text", ["Das schöne Café", unicodedata.normalize("NFD", "Das schöne Café"), "DAS SCHONE CAFE"]
)
def test_a_quote_is_found_however_its_accents_are_written(text: str) -> None:
    for quote in ("schöne Café", unicodedata.normalize("NFD", "schöne Café")):
        span = find_quote(Document("d", text), Quote("d", quote))
        assert span is not None
        assert span[0] == 4
        assert span[1] >= len(text) - 1


def test_a_link_to_itself_and_a_closed_folder_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    listing = list_files(tmp_path)
    assert [file.id for file in listing.files] == ["a.md"]
    assert {each.name for each in listing.skipped} >= {"loop.md"}


@pytest.mark.parametrize("key", ["ignore", "include"])
def test_patterns_are_a_list(key: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    with pytest.raises(DatasetError, match=rf"dataset.{key}=drafts/: a list of patterns is expected"):
        list_files(tmp_path, **{key: "drafts/"})


def test_what_is_ignored_may_be_taken_back(tmp_path: Path) -> None:
    for name in (".kept.md", ".other.md", "a.md"):
        (tmp_path / name).write_text(name)
    assert [each.id for each in list_files(tmp_path, ignore=["!.kept.md"]).files] == [".kept.md", "a.md"]


def test_a_heading_is_read_once_in_front_of_its_own_section() -> None:
    text = "# Guide\n\n## Setup\n\nUnpack it. Then plug it in.\n"
    document = Document("d", text, "", mark_headings(text).marks)
    starts = [text.index("## Setup"), text.index("Then")]
    chunks = Chunks(
        Documents((document,), "k"),
        np.zeros(2, np.int32),
        np.array(starts, np.int32),
        np.array([text.index(" Then"), len(text) - 1], np.int32),
        "k",
        headed=True,
    )
    assert chunks.readings == ["Guide\n## Setup\n\nUnpack it.", "Guide > Setup\nThen plug it in."]
    assert replace(chunks, headed=False).readings == chunks.texts


def test_items_and_rows_are_no_headings_and_many_spaces_no_trouble() -> None:
    assert mark_headings("- item\n---\n\n| a | b |\n---\n\n> quote\n---\n\n1. one\n---\n").marks == ()
    start = time.monotonic()
    (mark,) = mark_headings(f"# a{' ' * 200_000}b\n").marks
    assert mark.name.startswith("a")
    assert time.monotonic() - start < 2
    assert [m.name for m in mark_headings("# One ##\n\n#\n\n## #\n").marks] == ["One"]
