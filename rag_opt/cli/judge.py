"""`python -m rag_opt.judge check [key=value ...]`: how far a judge can be trusted, measured on labelled answers.

The configuration is a study's: `judge.model=gpt-4o-mini`, `llm=smollm2`. Answers are right, wrong and empty ones to the
packaged questions, also given at length. Verdicts are kept, so the same check costs nothing again.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, sanitize_line
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from rag_opt.judge.check import JudgeCheck
    from rag_opt.llm.replies import Expenses

ACTION = "check"
ACCOUNT = "judge check"
"""The study that its calls are paid by."""


@command_line("judge", __doc__, [ACTION, "judge.model=", "llm=", "llm.base_url=", "store.path="], studies=False)
def main(
    words: Annotated[list[str], Argument(metavar="check", help="check, then key=value of the configuration")],
    aspect: Annotated[
        list[str] | None, Option(help="correctness (the default), faithfulness, context_relevance, answer_relevance")
    ] = None,
    questions: Annotated[int, Option(min=1, help="packaged questions, four to seven labelled cases each")] = 20,
    repeats: Annotated[int, Option(min=1, help="verdicts a case: 2 or more show whether it repeats itself")] = 2,
) -> None:
    """The command line."""
    action, *given = words
    if action != ACTION:
        raise ConfigError(f"rag_opt.judge {action}: {ACTION} is expected, then key=value, such as judge.model=gpt-4o")
    print(sanitize_line("rag_opt.judge: loading what asks the judge, which takes some seconds"), flush=True)
    found, floor, paid = check_judges(given, aspect or ["correctness"], questions, repeats)
    console = build_console()
    console.print(_build_table(found, floor))
    print(sanitize_line(_format_paid(paid)))
    for each in found:
        print(sanitize_line(_format_verdict(each, floor)))
    if able := ",".join(f"judge.{each.aspect}" for each in found if each.kappa >= floor):
        print(sanitize_line(f"study:  python -m rag_opt.study {shlex.join([*given, f'objective.metrics=[{able}]'])}"))


def check_judges(
    words: Sequence[str], aspects: Sequence[str], questions: int, repeats: int
) -> tuple[list[JudgeCheck], float, Expenses]:
    """The judge that these words configure, measured aspect by aspect; the least kappa; what was paid for it.

    Raises ConfigError for an aspect that there is not, ComponentError where it can't be asked, and where
    budget.tokens or budget.usd is spent.
    """
    from rag_opt.config.compose import compose_config
    from rag_opt.console.progress import Screen
    from rag_opt.errors import ComponentError, format_hint
    from rag_opt.evaluation.accounts import open_account
    from rag_opt.evaluation.evaluator import build_resources
    from rag_opt.evaluation.judging import build_judges, measure_judge, parse_judge_settings
    from rag_opt.llm.budget import BudgetSpentError
    from rag_opt.metrics.aspects import FIELDS

    for aspect in aspects:
        if aspect not in FIELDS:
            raise ConfigError(f"--aspect {aspect}: there is no such judge; {format_hint(aspect, FIELDS)}")
    config = compose_config(words)
    settings, judges = parse_judge_settings(config), build_judges(config, [], repeats=1)
    # Of one token each way: all that matters is whether there is a price.
    price = judges.chat.compute_usd(judges.model, 1, 1)
    account = open_account(config, build_resources(config), ACCOUNT, judges.model, price)
    # An aspect that is named twice is paid for once.
    asked = dict.fromkeys(aspects)
    with Screen():
        try:
            found = [measure_judge(config, aspect, account.resources, questions, repeats) for aspect in asked]
        except BudgetSpentError as error:
            raise ComponentError(f"{error}; what was said is kept: a larger budget goes on from there") from error
    return found, settings.floor, account.paid


def _build_table(found: Sequence[JudgeCheck], floor: float) -> Table:
    """A column for each judge."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{found[0].model} on labelled answers, graded 1 to 5", title_justify="left")
    table.add_column("")
    for each in found:
        table.add_column(Text(each.aspect), justify="right")
    rows: dict[str, Sequence[str | Text]] = {
        "weighted kappa": [Text(f"{each.kappa:.2f}", "" if each.kappa >= floor else "red") for each in found],
        "its 95 % interval": [f"{each.low:.2f} to {each.high:.2f}" for each in found],
        "mean grade of right ones": [f"{each.right:.2f}" for each in found],
        "mean grade of wrong ones": [f"{each.wrong:.2f}" for each in found],
        "verdicts that can't be read": [_format_share(each.unreadable) for each in found],
        "the same grade again": [_format_share(each.repeatability) for each in found],
        "bonus of saying it at length": [_format_signed(each.length_bias) for each in found],
        "bonus of the right document first": [_format_signed(each.position_bias) for each in found],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _format_share(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.0%}"


def _format_signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"


def _format_paid(paid: Expenses) -> str:
    if not paid.calls:
        return "every verdict was kept: nothing was paid"
    # A ledger has 0 for what has no price.
    usd = f", ${paid.usd:,.4g}" if paid.usd else ""
    return f"paid: {paid.calls:,.0f} calls, {paid.tokens:,.0f} tokens{usd}; the same again costs nothing"


def _format_verdict(found: JudgeCheck, floor: float) -> str:
    if found.kappa >= floor:
        return f"judge.{found.aspect}: may decide (judge.floor={floor:g})"
    if found.is_constant:
        return f"judge.{found.aspect}: refused as an objective: it gives {found.right:g} to everything"
    return f"judge.{found.aspect}: refused as an objective, below judge.floor={floor:g}, unless judge.trust=true"
