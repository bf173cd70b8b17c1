"""`python -m rag_opt.workers.worker`: one worker of a study; `n_workers` starts them.

It takes trials until there are no more. The first line of its standard input says what to do: the command that started
it, its MLflow run, the overrides, as a JSON list. The rest belongs to whoever started it: when that ends, so does the
worker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from rag_opt.console.exit_status import escape_unencodable
from rag_opt.console.terminal import print_error, sanitize_text
from rag_opt.errors import LostError, RagOptError, StorageError
from rag_opt.system import environment
from rag_opt.workers.launchers import REFUSED

LONGEST_LINE = 1 << 16
"""Bytes that a pipe takes, and gives, at once; a command line is shorter."""

LAST_MOMENT = 30.0
"""Seconds that a worker whose parent has died may take to give its trial back."""


def run_worker(origin: tuple[str, str], overrides: Sequence[str]) -> None:
    """Take trials of the study that these overrides describe until there are no more; raises a RagOptError."""
    from rag_opt.console.progress import Screen

    with Screen() as screen:
        with environment.disable_gc():
            from rag_opt.storages.processes import WorkerOrigin
            from rag_opt.study.lifecycle import join_study
            from rag_opt.study.loop import Session
            from rag_opt.study.plan import build_plan
            from rag_opt.system.signals import Stopping

            environment.silence_optuna()
            plan = build_plan(overrides)
        try:
            with (
                # SIGINT may be inherited as ignored from a shell's background, but it is the command that sends it.
                Stopping(screen.report_line, always=True) as stopping,
                # The command rescues a lost file; each worker would write one more.
                join_study(plan, rescues=False) as (study, member),
            ):
                Session(plan, study, screen, member, stopping, origin=WorkerOrigin(*origin)).run()
        finally:
            plan.resources.store.save_usage()


def main() -> None:
    """The command line."""
    escape_unencodable()
    # Not from sys.argv, which every user of the machine can read: the overrides may hold a password.
    name, run, *overrides = json.loads(os.read(0, LONGEST_LINE))
    threading.Thread(target=_stop_with_parent, name="rag_opt-parent", daemon=True).start()
    try:
        run_worker((name, run), overrides)
    except RagOptError as error:
        print_error(error)
        # A database that went away may be back for the next worker; what a plan lacks it will lack again.
        away = isinstance(error, StorageError) and not isinstance(error, LostError)
        sys.exit(1 if away else REFUSED)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        print(sanitize_text(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)


def _stop_with_parent() -> None:
    """Stop with the process at the other end of standard input."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    # Python runs signal handlers in the main thread only, and C code may hold that for as long as it likes.
    time.sleep(LAST_MOMENT)
    os._exit(1)


if __name__ == "__main__":
    main()
    environment.exit_process()
