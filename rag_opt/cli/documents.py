"""`python -m rag_opt.documents FOLDER [parser=plain,pdfminer] [key=value ...]`: what parsers make of a folder's files.

Each file with what was found in it, or why nothing was; files that are the same or nearly so; with --questions also
whether each parser leaves the gold quotes in the text. What is read here is kept, so a study does not read it again.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, format_names, sanitize_line
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from rag_opt.components.parsers import ReadFile
    from rag_opt.components.resources import Resources
    from rag_opt.datasets.folder import Listing
    from rag_opt.records.documents import Document, Query

GROUP = "parser="
SEARCHED = ("plain", "pdfminer")
"""The parsers of conf/search_space/parsing.yaml: those that need nothing more."""


@dataclass(frozen=True)
class Reading:
    """What a parser made of the files."""

    parser: str
    files: tuple[ReadFile, ...]

    @property
    def documents(self) -> list[Document]:
        from rag_opt.components.parsers import build_document

        return [build_document(each.name, each.parsed) for each in self.files]


@command_line("documents", __doc__, [GROUP, "dataset.include=", "dataset.ignore=", "store.path="], studies=False)
def main(
    folder: Annotated[Path, Argument(help="a folder of documents")],
    words: Annotated[
        list[str] | None, Argument(metavar="key=value", help="parser=plain,pdfminer, dataset.ignore=…")
    ] = None,
    questions: Annotated[Path | None, Option(help="questions about them, whose quotes are looked for")] = None,
) -> None:
    """The command line."""
    given = list(words or ())
    if wrong := [word for word in given if "=" not in word]:
        raise ConfigError(f"rag_opt.documents {wrong[0]}: key=value is expected behind the folder")
    print(sanitize_line("rag_opt.documents: loading the parsers, which takes some seconds"), flush=True)
    listing, readings = read_folder(folder, given)
    console = build_console()
    for line in listing.format_notes():
        print(sanitize_line(line))
    console.print(_build_files_table(readings[0]))
    for reading in readings:
        _print_summary(reading)
    if questions is not None:
        console.print(_build_quotes_table(readings, _read_queries(questions)))
    # A placeholder where no file was given, so that the command shows what a study needs.
    asked = shlex.quote(str(questions or "questions.jsonl"))
    # Of several parsers none is named, since search_space=parsing is to choose.
    chosen = f"parser={readings[0].parser} " if len(readings) == 1 and readings[0].parser != "plain" else ""
    study = (
        f"dataset=folder dataset.path={shlex.quote(str(folder))} dataset.questions={asked} {chosen}objective=evidence"
    )
    print(sanitize_line(f"study:  python -m rag_opt.study {study} {name_space([each.parser for each in readings])}"))


def name_space(parsers: Sequence[str]) -> str:
    """The words for a space that tries these parsers, with splitters; as it is packaged where that has them all."""
    # A single one is named on the command line, which takes it out of the space.
    if len(parsers) == 1 or set(parsers) <= set(SEARCHED):
        return "search_space=parsing"
    # Of several none is named there, so the configuration's own, plain, must be among the choices.
    tried = dict.fromkeys(["plain", *parsers])
    # In quotes of its own, without which Hydra takes it for a sweep.
    choice = f"search_space.parser='choice({', '.join(tried)})'"
    return f"search_space=parsing {shlex.quote(choice)}"


def read_folder(folder: Path, words: Sequence[str]) -> tuple[Listing, list[Reading]]:
    """The files of a folder, and what each parser that the words name makes of them; raises as a study does."""
    from rag_opt.config.compose import compose_config
    from rag_opt.config.trust import to_plain
    from rag_opt.console.progress import Screen
    from rag_opt.datasets.folder import list_files
    from rag_opt.evaluation.evaluator import build_resources

    chosen = [word.removeprefix(GROUP) for word in words if word.startswith(GROUP)]
    parsers = (chosen[-1] if chosen else "plain").strip("[]").split(",")
    rest = [*(word for word in words if not word.startswith(GROUP)), "dataset=folder"]
    config = compose_config(rest)
    node = to_plain(config.dataset)
    listing = list_files(folder, node["include"], node["ignore"], node["most_mb"])
    resources = build_resources(config)
    with Screen():
        return listing, [_read(listing, parser, [*rest, f"{GROUP}{parser}"], resources) for parser in parsers]


def _read(listing: Listing, parser: str, words: Sequence[str], resources: Resources) -> Reading:
    from rag_opt.components.parsers import Parser
    from rag_opt.config.trial import compose_trial
    from rag_opt.config.trust import build
    from rag_opt.records.documents import Documents
    from rag_opt.records.keys import compute_key

    config = compose_trial(words)
    component = build(dict(config.components["parser"]), config.trusted)
    if not isinstance(component, Parser):
        raise ConfigError(f"parser={parser}: {type(component).__name__} is no rag_opt.components.parsers.Parser")
    component.use(resources)
    # The key of `get_corpus`, by which a study finds what was read here.
    documents = Documents(listing.files, compute_key("documents", [each.content for each in listing.files]))
    return Reading(parser, component.read_files(documents))


def _build_files_table(reading: Reading) -> Table:
    """A row a file: what was found in it, or why nothing was."""
    from rich.table import Table
    from rich.text import Text

    from rag_opt.records.documents import HEADING, PAGE, TABLE

    table = Table(title=f"parser={reading.parser}", title_justify="left")
    for name in ("file", "words", "pages", "headings", "tables", "seconds"):
        table.add_column(name, justify="left" if name == "file" else "right")
    table.add_column("notes", overflow="fold")
    for each in reading.files:
        kinds = Counter(mark.kind for mark in each.parsed.marks)
        counts = [len(each.parsed.text.split()), *(kinds[kind] for kind in (PAGE, HEADING, TABLE))]
        cells = [f"{count:,}" if count else "" for count in counts]
        notes = each.error or "; ".join(each.parsed.notes)
        table.add_row(Text(sanitize_line(each.name)), *cells, f"{each.seconds:.2f}", Text(sanitize_line(notes)))
    return table


def _print_summary(reading: Reading) -> None:
    """How many files were read, and which texts are the same or nearly so."""
    from rag_opt.documents.likeness import find_near_copies

    failed = sum(bool(each.error) for each in reading.files)
    words = sum(len(each.parsed.text.split()) for each in reading.files)
    seconds = sum(each.seconds for each in reading.files)
    told = f"{len(reading.files) - failed:,} of {len(reading.files):,} files read, {words:,} words"
    print(sanitize_line(f"parser={reading.parser}: {told}, {seconds:.1f} s of work"))
    alike = find_near_copies([each.parsed.text for each in reading.files])
    if alike:
        named = format_names(" = ".join(reading.files[place].name for place in places) for places in alike)
        print(
            sanitize_line(f"parser={reading.parser}: {len(alike)} groups of files with nearly the same text: {named}")
        )


def _read_queries(path: Path) -> list[Query]:
    from rag_opt.datasets.files import resolve_path
    from rag_opt.datasets.jsonl import read_questions

    queries = [query for query in read_questions(resolve_path(path, "--questions"))[0] if query.quotes]
    if not queries:
        raise ConfigError(f"--questions {path}: no question has a quote: evidence: [{{doc_id, quote}}]")
    return queries


def _build_quotes_table(readings: Sequence[Reading], queries: Sequence[Query]) -> Table:
    """A row a parser: how many of the gold quotes stand in what it made of the files."""
    from rich.table import Table
    from rich.text import Text

    from rag_opt.documents.quotes import find_evidence

    table = Table(title="gold quotes found", title_justify="left")
    for name in ("parser", "quotes", "found"):
        table.add_column(name, justify="left" if name == "parser" else "right")
    table.add_column("not found", overflow="fold")
    for reading in readings:
        found = find_evidence(queries, reading.documents)
        share = 1 - len(found.missing) / found.total
        lost = found.format_missing() if found.missing else ""
        table.add_row(reading.parser, f"{found.total:,}", f"{share:.1%}", Text(lost))
    return table
