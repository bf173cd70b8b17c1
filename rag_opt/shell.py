"""Command lines: what is wrong is said in one message, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hydra._internal.utils import get_args_parser

from rag_opt.config import checked
from rag_opt.errors import RagOptError

USAGE_ERROR = 2
INTERRUPTED = 130


class Refused(SystemExit):
    """Ends a Hydra job with a message; Hydra lets it pass where it would frame an ordinary exception."""

    def __init__(self, error: RagOptError) -> None:
        super().__init__(USAGE_ERROR)
        self.error = error


def run_hydra(task: Callable[[], Any]) -> None:
    """Check the command line, run the Hydra main function, and end with 0, 2 (refused) or 130 (stopped by Ctrl-C)."""
    args = get_args_parser().parse_args()
    try:
        if not (args.help or args.hydra_help or args.shell_completion):
            extra = [f"hydra.searchpath=[file://{args.config_dir}]"] if args.config_dir else []
            checked([*args.overrides, *extra])
        task()
    except Refused as refused:
        sys.exit(_said(refused.error))
    except RagOptError as error:
        sys.exit(_said(error))
    except KeyboardInterrupt:
        print("stopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _said(error: RagOptError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return USAGE_ERROR
