"""`python -m rag_opt.replay studies/a [grid.parquet ...] [sampler=rag,tpe] [seeds=30] [budget=50] [questions=20]`.

Recorded studies as benchmarks of samplers: each is searched again, on other halves of its questions every time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.exit_status import INTERRUPTED
from rag_opt.console.terminal import build_console
from rag_opt.errors import ConfigError
from rag_opt.system import environment

SAMPLERS = "random,greedy,tpe,gp,rag"
NUMBERS = {"seeds": 30, "budget": 50, "questions": 0}


@command_line("replay", __doc__, ["sampler=", *(f"{key}=" for key in NUMBERS)])
def main(
    words: Annotated[list[str], Argument(help="studies' folders, tables, and key=value")],
    storage: Storage = None,
    out: Annotated[Path, Option(help="where the tables and the plot go")] = Path("replay"),
) -> None:
    """The command line."""
    try:
        _run(words, storage, out)
    except KeyboardInterrupt:
        print("stopped; nothing was kept: the same command begins anew", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run(words: Sequence[str], storage: str | None, out: Path) -> None:
    # Studies of a multirun have folders such as seed=0.
    places = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    values = dict(word.split("=", 1) for word in words if Path(word) not in places)
    samplers = values.pop("sampler", SAMPLERS).split(",")
    numbers = {key: _parse_number(key, values.pop(key, str(default))) for key, default in NUMBERS.items()}
    if values:
        raise ConfigError(f"{next(iter(values))}: no such key; there are sampler, {', '.join(NUMBERS)}")
    if not places:
        raise ConfigError("name a study's folder or a table, such as studies/quickstart")
    with environment.disable_gc():
        from rag_opt.console.progress import Screen
        from rag_opt.simulation import contest, contest_page
        from rag_opt.simulation.tables import SUFFIX, load_table, write_parquet

        environment.silence_optuna()
    # Before anything is searched: at the end minutes of work would be lost.
    _check_out(out)
    tables = [load_table(place, storage) for place in places]
    # Entries know their table by its name alone, so two of one name would be averaged as one.
    twice = [table.name for table in tables if [other.name for other in tables].count(table.name) > 1]
    if twice:
        raise ConfigError(f"{twice[0]}: two tables have this name; replay them apart, or one under another name")
    for place, table in zip(places, tables, strict=True):
        if place.suffix != SUFFIX:
            write_parquet(table, out / f"{table.name}{SUFFIX}")
    # The largest table sets it: on a smaller one a search ends early and keeps its best.
    budget = min(numbers["budget"], max(len(table.configurations) for table in tables))
    with Screen() as screen:
        if budget < numbers["budget"]:
            known = f"there are {budget} configurations at most, so that many are told"
            screen.report_line(f"budget={numbers['budget']}: {known}")
        # questions=0 stands for all of them.
        rules = contest.Rules(numbers["seeds"], budget, numbers["questions"] or None)
        found = contest.run_contest(tables, samplers, rules, screen)
    output = build_console()
    contest_page.print_contest(found, output)
    page = contest_page.write_contest(found, out)
    output.print(f"\n{'open:':<10} {page}", markup=False)


def _parse_number(key: str, text: str) -> int:
    if not text.isdecimal() or (int(text) == 0 and key != "questions"):
        raise ConfigError(f"{key}={text}: give a whole number{'' if key == 'questions' else ' of at least 1'}")
    return int(text)


def _check_out(out: Path) -> None:
    """Raise ConfigError unless what is found can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"--out {out}: can't be written: {error.strerror or error}") from error
