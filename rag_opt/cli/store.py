"""`python -m rag_opt.store [show | prune | forget] store.path=…`: what is kept for later studies, and what goes."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rag_opt.cache.eviction import evicted, shown, told
from rag_opt.cache.store import GIGABYTE
from rag_opt.console.terminal import command, console
from rag_opt.errors import ConfigError
from rag_opt.llm.replies import FILE, Replies

ACTIONS = ("show", "prune", "forget")
DAY = 86_400


def _understood(words: Sequence[str]) -> tuple[str, Path]:
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


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: show what is kept, prune it, or forget what could not be read of models' replies."""
    parser = argparse.ArgumentParser(
        prog="python -m rag_opt.store", description="What was computed and kept for later studies, by stage."
    )
    parser.add_argument("words", nargs="*", metavar="action", help="show (the default), prune, forget; store.path=…")
    parser.add_argument("--path", type=Path, help="the store's folder, as store.path= names it")
    parser.add_argument("--limit-gb", type=float, default=None, help="prune: keep at most so much, the last used")
    parser.add_argument("--unused-days", type=float, default=None, help="prune: remove what was not used for so long")
    given = parser.parse_intermixed_args(arguments)
    try:
        given.action, named = _understood(given.words)
    except ConfigError as error:
        parser.error(str(error))
    given.path = given.path or named
    if not given.path.is_dir():
        parser.error(f"{given.path}: there is no store; name it with store.path=, or run a study first")
    screen = console()
    if given.action == "prune":
        if given.limit_gb is None and given.unused_days is None:
            parser.error("prune needs --limit-gb (0 removes all) or --unused-days")
        limit = float("inf") if given.limit_gb is None else given.limit_gb * GIGABYTE
        since = float("-inf") if given.unused_days is None else time.time() - given.unused_days * DAY
        screen.print(
            f"removed: {told(evicted(given.path, limit, since))}; what a running study uses stays", markup=False
        )
    if given.action == "forget":
        known = (given.path / FILE).exists()
        screen.print(
            f"{Replies(given.path).forget() if known else 0:,} replies that could not be read are asked for again"
        )
    screen.print(shown(given.path))
    if given.action == "show":
        again = f"python -m rag_opt.store prune store.path={shlex.quote(str(given.path))} --limit-gb 1"
        screen.print(f"remove what was not used for longest: {again}", markup=False)
