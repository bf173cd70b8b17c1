"""`python -m rag_opt.questions make | check | import FILE [key=value ...]`: questions about documents.

`make` has the model that `llm` names write `--count` questions about the documents, sifts them and checks what is
left; `check` says what those of a data set are worth; `import` takes those of CSV, ragas, Haystack, LlamaIndex, BEIR
or MLflow (traces:sqlite:///mlflow.db#experiment). Documents are named as for a study: `dataset=folder
dataset.path=docs`. What is left in `--out` is a page to read the questions in, to accept and to reject each, and the
same as JSON Lines, which studies take as `dataset.questions`; rows with "accept": false are left out there. Replies
are kept: after an interruption the same command goes on.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, sanitize_line
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from rag_opt.llm.replies import Expenses
    from rag_opt.questions.check import QuestionCheck
    from rag_opt.questions.making import MadeSet
    from rag_opt.records.documents import Document

ACTIONS = ("make", "check", "import")
PAGE, ROWS, MADE, UNANSWERED = "questions.html", "questions.checked.jsonl", "questions.jsonl", "unanswerable.jsonl"
ACCOUNT = "questions made"
"""The study that calls are paid by."""

DIVIDING = ("dataset.test_share", "dataset.split_seed", "dataset.groups")
"""What is said of questions whatever file they come from."""


@command_line("questions", __doc__, [*ACTIONS, "dataset=", "dataset.path=", "llm=", "budget.tokens="], studies=False)
def main(
    words: Annotated[list[str], Argument(metavar="action", help="make, check or import FILE, then key=value")],
    count: Annotated[int, Option(min=1, help="make: how many questions are wanted")] = 100,
    simple: Annotated[bool, Option(help="make: of one sentence each, as a small model can (no answers)")] = False,
    out: Annotated[Path, Option(help="the folder for the page and the questions")] = Path(),
) -> None:
    """The command line."""
    action, *given = words
    if action not in ACTIONS:
        raise ConfigError(f"rag_opt.questions {action}: one of {', '.join(ACTIONS)} is expected, then key=value")
    print(sanitize_line("rag_opt.questions: reading the documents, which takes some seconds"), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    if action == "make":
        _print_made(given, count, out, simple=simple)
    elif action == "check":
        _print_check(given, out)
    else:
        _print_imported(given, out)


def _print_check(given: Sequence[str], out: Path) -> None:
    check, page = check_dataset(given)
    (out / PAGE).write_text(page, "utf-8")
    _write_rows(out / ROWS, [each.to_row() for each in check.questions])
    for line in format_summary(check):
        print(sanitize_line(line))
    if check.counts:
        build_console().print(_build_table(check))
    print(sanitize_line(f"read, accept, reject: {out / PAGE} (or change accept in {out / ROWS})"))
    if any(word.startswith("dataset.questions=") for word in given):
        study = [word for word in given if not word.startswith("dataset.questions=")]
        print(
            sanitize_line(f"study:  python -m rag_opt.study {shlex.join([*study, f'dataset.questions={out / ROWS}'])}")
        )


def _print_made(given: Sequence[str], count: int, out: Path, *, simple: bool) -> None:
    from rag_opt.datasets import jsonl

    made, page, paid = make_dataset(given, count, simple=simple)
    rows = made.build_rows()
    (out / PAGE).write_text(page, "utf-8")
    _write_rows(out / MADE, rows)
    lines = [{"id": f"u{n}", "question": each.question} for n, each in enumerate(made.unanswerable, 1)]
    _write_rows(out / UNANSWERED, lines)
    build_console().print(_build_sifting_table(made))
    for line in format_summary(made.check):
        print(sanitize_line(line))
    print(sanitize_line(f"paid for: {_format_expenses(paid)}"))
    if len(made.sifted.kept) < count:
        print(
            sanitize_line(f"{len(made.sifted.kept)} of {count} questions: there are no further passages to ask about")
        )
    print(sanitize_line(f"made by a model: {jsonl.SINGLE if simple else jsonl.MADE}"))
    print(sanitize_line(f"read, accept, reject: {out / PAGE} (or change accept in {out / MADE})"))
    study = shlex.join(name_questions(given, out / MADE, made.documents))
    print(sanitize_line(f"study:  python -m rag_opt.study {study}"))


def _print_imported(given: Sequence[str], out: Path) -> None:
    from rag_opt.questions.foreign import import_questions

    # A path may hold an equals sign, as folders of a multirun do.
    source, words = (given[0], given[1:]) if given and ("=" not in given[0] or Path(given[0]).exists()) else ("", given)
    if not source:
        raise ConfigError("rag_opt.questions import: a file, a folder or traces:URL#experiment is expected")
    named = any(word.startswith("dataset") for word in words)
    documents = _read_documents(words) if named else ()
    found = import_questions(source, documents)
    _write_rows(out / MADE, found.rows)
    skipped = f", {found.skipped:,} rows without a question left out" if found.skipped else ""
    print(sanitize_line(f"{source}: {len(found.rows):,} question{'s' * (len(found.rows) > 1)}{skipped}: {out / MADE}"))
    if found.contexts:
        place = f"{found.contexts - found.lost:,} of {found.contexts:,} contexts found in the documents"
        print(
            sanitize_line(
                place if named else f"{place}: name these (dataset=folder dataset.path=…), and they are quotes"
            )
        )
    again = shlex.join(name_questions(words, out / MADE, documents))
    print(sanitize_line(f"check them:  python -m rag_opt.questions check {again}"))


def _read_documents(words: Sequence[str]) -> tuple[Document, ...]:
    from rag_opt.config.compose import compose_config
    from rag_opt.console.progress import Screen
    from rag_opt.evaluation.evaluator import build_resources
    from rag_opt.questions.making import read_documents

    with Screen():
        config = compose_config(words)
        return read_documents(config, build_resources(config), words).items


def name_questions(words: Sequence[str], questions: Path, documents: Sequence[Document]) -> list[str]:
    """These words with this file of questions; a data set that has no such file is written as two files beside it."""
    from rag_opt.config.compose import compose_config

    # A data set of another format has no key for a file of questions.
    if not documents or "questions" in compose_config(words).dataset:
        return [*words, f"dataset.questions={questions}"]
    corpus = questions.with_name("documents.jsonl")
    _write_rows(corpus, [{"id": each.id, "title": each.title, "text": each.text} for each in documents])
    kept = [word for word in words if not word.startswith("dataset") or word.partition("=")[0] in DIVIDING]
    return [*kept, "dataset=jsonl", f"dataset.documents={corpus}", f"dataset.questions={questions}"]


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")


def make_dataset(words: Sequence[str], count: int, *, simple: bool = False) -> tuple[MadeSet, str, Expenses]:
    """Questions about the documents that these words name, their page, and what was paid; raises as a study does.

    A budget that is spent raises ComponentError; what was written until then is kept.
    """
    from rag_opt.config.compose import compose_config
    from rag_opt.config.settings import parse_settings
    from rag_opt.console.progress import Screen
    from rag_opt.errors import ComponentError
    from rag_opt.evaluation.accounts import open_account
    from rag_opt.evaluation.evaluator import build_resources
    from rag_opt.llm.budget import BudgetSpentError
    from rag_opt.questions.kinds import UNANSWERABLE
    from rag_opt.questions.making import (
        check_made,
        choose_targets,
        cut_passages,
        forecast_making,
        get_most,
        make_questions,
        read_documents,
    )
    from rag_opt.questions.page import get_gold_text, render_page
    from rag_opt.questions.searching import build_search
    from rag_opt.questions.writing import build_author

    with Screen() as screen:
        config = compose_config(words)
        author, resources = build_author(config), build_resources(config)
        account = open_account(config, resources, ACCOUNT, author.model, author.price)
        documents = read_documents(config, resources, words)
        chunks, seed = cut_passages(documents, resources, words), parse_settings(config).seed
        told = forecast_making(author, choose_targets(chunks, count, seed, simple=simple), resources)
        most = f"at most {get_most(simple=simple)} times that"
        screen.report_line(f"forecast: {_format_expenses(told)}, where every question is left; {most}")
        # From here on calls are paid by the account, whose budget ends them.
        author = author.use_resources(account.resources)
        try:
            search = build_search(documents, words, resources) if simple else None
            sifted, written = make_questions(author, chunks, count, seed, simple=simple, search=search)
        except BudgetSpentError as error:
            raise ComponentError(f"{error}; what was said is kept: a larger budget goes on from there") from error
        if all(made.target.kind == UNANSWERABLE for made in sifted.kept):
            why = "; ".join(f"{number} since {reason}" for reason, number in sifted.dropped.items())
            none = f"of {written} questions that {author.model} wrote none with an answer is left"
            raise ComponentError(f"{none} ({why}); choose another llm.model{'' if simple else ', or --simple'}")
        made = check_made(sifted, written, documents, words, resources)
    texts = {each.id: each.text for each in documents.items}
    gold = {each.query.id: get_gold_text(each, texts) for each in made.check.questions}
    return made, render_page(made.check, made.build_rows(), list(format_summary(made.check)), gold), account.paid


def _format_expenses(told: Expenses) -> str:
    usd = "no price known" if math.isnan(told.usd) else f"${told.usd:,.4g}"
    return f"{told.calls:,.0f} calls, {float(f'{told.tokens:.3g}'):,.0f} tokens, {usd}"


def check_dataset(words: Sequence[str]) -> tuple[QuestionCheck, str]:
    """The check of the data set that these words name, and its page; raises as a study does."""
    from rag_opt.config.compose import compose_config
    from rag_opt.config.trial import compose_trial
    from rag_opt.console.progress import Screen
    from rag_opt.datasets.checks import get_corpus
    from rag_opt.evaluation.evaluator import build_resources, load_dataset
    from rag_opt.evaluation.pipelines import build_pipeline
    from rag_opt.questions.check import SEARCH, check_questions
    from rag_opt.questions.page import get_gold_text, render_page

    with Screen():
        config = compose_config(words)
        resources, dataset = build_resources(config), load_dataset(config)
        check = check_questions(dataset, words, resources)
        read = build_pipeline(compose_trial([*words, *SEARCH]), resources).parse_documents(get_corpus(dataset))
    texts = {each.id: each.text for each in read.items}
    gold = {each.query.id: get_gold_text(each, texts) for each in check.questions}
    rows = [each.to_row() for each in check.questions]
    return check, render_page(check, rows, list(format_summary(check)), gold)


def format_summary(check: QuestionCheck) -> Iterator[str]:
    """What the set is and can show, a line each."""
    count = len(check.questions)
    kept = sum(each.accepted for each in check.questions)
    yield f"{check.name}: {count:,} questions about {check.documents:,} documents, {check.different:,} different ones"
    yield f"{kept:,} of them have nothing that speaks against them; {check.answered:,} have a reference answer"
    most = f"{check.crowded:.0%} of the questions are about the tenth that is asked about most"
    yield f"{check.covered:.0%} of the documents are asked about; {most}"
    if not math.isnan(check.mean):
        yield f"searched by words alone: nDCG@10 {check.mean:.3f}, the document first for {check.first:.0%} of them"
    if not math.isnan(check.detectable):
        yield f"a difference of {check.detectable:.3f} in nDCG@10 is shown by so many in 8 of 10 studies"


def _build_table(check: QuestionCheck) -> Table:
    """A row a flag: how many questions have it, what it means, an example."""
    from rich.table import Table
    from rich.text import Text

    from rag_opt.questions.flags import MEANINGS

    table = Table()
    for name in ("flag", "questions", "what it means", "such as"):
        table.add_column(name, justify="right" if name == "questions" else "left", overflow="fold")
    for name, count in check.counts.most_common():
        example = next(each for each in check.questions if any(flag.name == name for flag in each.flags))
        detail = next(flag.detail for flag in example.flags if flag.name == name)
        shown = Text(sanitize_line(f"{example.query.text[:90]} — {detail[:60]}"))
        table.add_row(name, f"{count:,}", MEANINGS[name], shown)
    return table


def _build_sifting_table(made: MadeSet) -> Table:
    """A row for each reason why questions were left out: how many, and an example."""
    from rich.table import Table
    from rich.text import Text

    kept, examples = len(made.sifted.kept), made.sifted.examples
    table = Table(title=f"{made.written:,} questions written, {kept:,} left", title_justify="left")
    for name in ("left out since", "questions", "such as"):
        table.add_column(name, justify="right" if name == "questions" else "left", overflow="fold")
    for reason, number in made.sifted.dropped.items():
        table.add_row(reason, f"{number:,}", Text(sanitize_line(examples.get(reason, "")[:100])))
    return table
