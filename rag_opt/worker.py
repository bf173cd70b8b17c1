"""`python -m rag_opt.worker CREW RUN [key=value ...]`: one worker of a study; `n_workers` starts them.

It takes trials until there are no more. Its standard input belongs to whoever started it: when that ends, so does it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from rag_opt import environment
from rag_opt.errors import RagOptError

LAST_MOMENT = 30.0
"""Seconds that a worker whose parent has died may take to give its trial back."""


def worked(crew: tuple[str, str], overrides: Sequence[str]) -> None:
    """Take trials of the study that these overrides describe until there are no more; raises a RagOptError."""
    from rag_opt.progress import Screen

    with Screen() as screen:
        with environment.no_collection():
            from rag_opt.plan import planned
            from rag_opt.processes import Crew
            from rag_opt.session import Session, entered
            from rag_opt.stopping import Stopping

            environment.quiet_optuna()
            plan = planned(overrides)
        try:
            with Stopping() as stopping, entered(plan) as (study, gate):
                Session(plan, study, screen, gate, stopping, crew=Crew(*crew)).run()
        finally:
            plan.dev.store.settle()


def main() -> None:
    """The command line."""
    crew, run, *overrides = sys.argv[1:]
    threading.Thread(target=_follow, name="rag_opt-parent", daemon=True).start()
    try:
        worked((crew, run), overrides)
    except RagOptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _follow() -> None:
    """Stop with the process at the other end of standard input."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_MOMENT)
    os._exit(1)


if __name__ == "__main__":
    main()
    environment.leave()
