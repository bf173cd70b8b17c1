"""`python -m rag_opt.store [show | prune | forget] store.path=…`: what is kept for later studies, and what goes."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rag_opt.cache.eviction import build_store_table, evict_artifacts, format_artifacts
from rag_opt.cache.store import GIGABYTE
from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console
from rag_opt.errors import ConfigError
from rag_opt.llm.replies import FILE, Replies

ACTIONS = ("show", "prune", "forget")
DAY = 86_400


def _parse_action(words: Sequence[str]) -> tuple[str, Path]:
    """The action and the folder that words of the command line name, as a study's do; raises ConfigError."""
    actions = [word for word in words if "=" not in word]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    if unknown := [*(set(actions) - set(ACTIONS)), *(set(values) - {"store.path", "studies_dir"})] or actions[1:]:
        raise ConfigError(
            f"{unknown[0]}: one of {', '.join(ACTIONS)} is expected, and store.path= or studies_dir= to name the store"
        )
    studies = values.get("studies_dir", "studies")
    folder = values.get("store.path") or os.environ.get("RAG_OPT_STORE") or f"{studies}/.store"
    return (actions or ACTIONS)[0], Path(folder.strip("'\"")).expanduser()


@command_line(
    "store",
    "What was computed and kept for later studies, by stage.",
    [*ACTIONS, "store.path=", "studies_dir="],
    studies=False,
)
def main(
    words: Annotated[
        list[str] | None, Argument(metavar="action", help="show (the default), prune, forget; store.path=…")
    ] = None,
    path: Annotated[Path | None, Option(help="the store's folder, as store.path= names it")] = None,
    limit_gb: Annotated[float | None, Option(help="prune: keep at most so much, the last used")] = None,
    unused_days: Annotated[float | None, Option(help="prune: remove what was not used for so long")] = None,
) -> None:
    """The command line: show what is kept, prune it, or forget what could not be read of models' replies."""
    action, named = _parse_action(words or ())
    place = path or named
    if not place.is_dir():
        raise ConfigError(f"{place}: there is no store; name it with store.path=, or run a study first")
    screen = build_console()
    if action == "prune":
        screen.print(_prune_store(place, limit_gb, unused_days), markup=False)
    if action == "forget":
        known = (place / FILE).exists()
        screen.print(
            f"{Replies(place).delete_unread() if known else 0:,} replies that could not be read are asked for again"
        )
    screen.print(build_store_table(place))
    if action == "show":
        again = f"python -m rag_opt.store prune store.path={shlex.quote(str(place))} --limit-gb 1"
        screen.print(f"remove what was not used for longest: {again}", markup=False)


def _prune_store(place: Path, limit_gb: float | None, unused_days: float | None) -> str:
    if limit_gb is None and unused_days is None:
        raise ConfigError("prune needs --limit-gb (0 removes all) or --unused-days")
    limit = float("inf") if limit_gb is None else limit_gb * GIGABYTE
    since = float("-inf") if unused_days is None else time.time() - unused_days * DAY
    return f"removed: {format_artifacts(evict_artifacts(place, limit, since))}; what a running study uses stays"
