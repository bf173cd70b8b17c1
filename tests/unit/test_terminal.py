"""What a terminal is given holds nothing that it would obey, whoever wrote it."""

from __future__ import annotations

import ast
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from rag_opt.cli.ask import answer_question
from rag_opt.console.progress import Screen
from rag_opt.console.terminal import build_console, escape_controls, print_error, sanitize_line, sanitize_text
from rag_opt.datasets.checks import build_dataset
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Document
from rag_opt.reporting.tables import build_rich_table
from tests.conftest import ROOT, write_jsonl
from tests.unit.hostile import COMMANDS, OBEYED, TITLE

FIT = re.compile(r"\b(sanitize_line|sanitize_text)\(")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain, ünïcode, עברית, हिन्दी, 👩‍👩‍👧", "plain, ünïcode, עברית, हिन्दी, 👩‍👩‍👧"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (TITLE, "\\x1b]0;gone\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\r\nc", "a\\rb\nc"),
        ("a\u202eb\u2069", "a\\u202eb\\u2069"),
        ("a\ud83db", "a\\ud83db"),
    ],
)
def test_controls_are_shown_as_they_are_written(text: str, told: str) -> None:
    assert escape_controls(text) == told
    assert escape_controls(told) == told


def test_a_part_of_a_line_stays_in_its_line() -> None:
    assert sanitize_line("doc\nerror: x\ty") == "doc\\nerror: x\\ty"


def test_what_is_shown_hides_what_grants_access() -> None:
    assert sanitize_text("https://x.example/a?X-Amz-Signature=\x1b12ab") == "https://x.example/a?X-Amz-Signature=***"


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_no_text_holds_what_a_terminal_obeys(text: str) -> None:
    assert not OBEYED.search(sanitize_line(text))
    sanitize_line(text).encode()


def test_a_console_obeys_no_text_in_lines_tables_and_bars() -> None:
    file = io.StringIO()
    screen = build_console(file)
    screen.print(COMMANDS, markup=False)
    table = Table(COMMANDS, title=COMMANDS)
    table.add_row(Text(COMMANDS))
    screen.print(table)
    screen.print(build_rich_table(COMMANDS, ([COMMANDS], [[COMMANDS]])))
    assert not OBEYED.search(file.getvalue())


def test_a_screen_says_one_line() -> None:
    file = io.StringIO()
    with Screen(file) as screen:
        screen.report_line(COMMANDS)
    assert file.getvalue().count("\n") == 1
    assert not OBEYED.search(file.getvalue())


def test_a_text_in_an_error_can_not_pass_for_a_line_of_its_own(capsys) -> None:
    print_error(DatasetError(COMMANDS))
    told = capsys.readouterr().err
    assert not OBEYED.search(told)
    assert [line[:2] for line in told.splitlines()] == ["er", "  "]


def test_every_line_of_the_package_goes_through_the_one_place() -> None:
    """What is printed is a constant, or made fit; consoles are made in one place."""
    wrong = []
    for path in (ROOT / "rag_opt").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        for call in calls if path.name != "terminal.py" else []:
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            fit = all(isinstance(each, ast.Constant) or FIT.search(ast.unparse(each)) for each in call.args)
            if name == "Console" or (name == "print" and not fit):
                wrong.append(f"{path.name}:{call.lineno}: {ast.unparse(call)}")
    assert wrong == []


def test_ids_that_occur_twice_are_named_in_one_line() -> None:
    with pytest.raises(DatasetError) as caught:
        build_dataset("mine", [Document(COMMANDS, "text")] * 2, [], [])
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_ask_shows_sources_and_answer_without_what_a_terminal_obeys(tmp_path, capsys) -> None:
    rows = [{"id": f"{COMMANDS}{name}", "text": f"{name} purr{COMMANDS} all day"} for name in ("cats", "dogs")]
    questions = [{"question": "Who purrs?", "relevant": [rows[0]["id"]]}]
    files = [
        f"dataset.documents={write_jsonl(tmp_path / 'd.jsonl', rows)}",
        f"dataset.questions={write_jsonl(tmp_path / 'q.jsonl', questions)}",
    ]
    given = ["dataset=jsonl", *files, "retriever=bm25", "splitter=none", f"store.path={tmp_path}/store"]
    answer = answer_question([*given, "question='Who purrs all day?'"])
    told = capsys.readouterr()
    assert not OBEYED.search(told.out + told.err)
    assert len([line for line in told.out.splitlines() if re.match(r"  a\\x1b", line)]) == 2
    assert answer


def test_an_address_in_a_files_name_shows_no_password() -> None:
    assert sanitize_text("https:||me:c4nARY0123@b.example|k.jsonl:1") == "https:||me:***@b.example|k.jsonl:1"
