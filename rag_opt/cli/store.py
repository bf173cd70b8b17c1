"""`python -m rag_opt.store [show | prune | forget] store.path=…`: what is kept for later studies, and what goes."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cache.eviction import IN_STORES, NEVER, build_store_table, evict_artifacts, format_artifacts
from rag_opt.cache.store import GIGABYTE
from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console
from rag_opt.errors import ConfigError, RagOptError
from rag_opt.llm.replies import FILE, Replies

if TYPE_CHECKING:
    from rich.console import Console

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
    # The order of conf/config.yaml. A word that is copied from a study's command may have quotes for Hydra.
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
    _print_indexes(place, screen)
    if action == "show":
        again = f"python -m rag_opt.store prune store.path={shlex.quote(str(place))} --limit-gb 1"
        screen.print(f"remove what was not used for longest: {again}", markup=False)


# Indexes are listed before anything goes: of one that is listed no more nobody would know what to drop, and one that
# can't be dropped is kept on the list.
def _prune_store(place: Path, limit_gb: float | None, unused_days: float | None) -> str:
    if limit_gb is None and unused_days is None:
        raise ConfigError("prune needs --limit-gb (0 removes all) or --unused-days")
    limit = float("inf") if limit_gb is None else limit_gb * GIGABYTE
    since = float("-inf") if unused_days is None else time.time() - unused_days * DAY
    from rag_opt.components.document_stores import list_indexes

    known = {index.name: index for index in list_indexes(place)}
    removed = evict_artifacts(place, limit, since, set(NEVER) - {IN_STORES})
    left = []
    for artifact in removed:
        index = known.get(artifact.key) if artifact.stage == IN_STORES else None
        if index is not None and index.lasts:
            try:
                index.drop()
            except RagOptError as error:
                index.keep(artifact.path)
                left.append(f"\n{index.kind} {index.name} stays: {error}")
    told = f"removed: {format_artifacts(removed)}; what a running study uses stays"
    return "".join([told, *left])


def _print_indexes(place: Path, screen: Console) -> None:
    """The indexes that lie in document stores, where there are any."""
    from rag_opt.components.document_stores import list_indexes

    for index in list_indexes(place):
        if index.lasts:
            when = f"{datetime.fromtimestamp(index.used).astimezone():%Y-%m-%d %H:%M}"
            screen.print(f"{index.kind} {index.name}: {index.count:,} documents, last used {when}", markup=False)
