"""Running the program as a user does: a process of its own, its output, and a kill at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna


def command(*overrides: str, module: str = "rag_opt.study") -> list[str]:
    return [sys.executable, "-m", module, *overrides]


def finished(
    cwd: Path, *overrides: str, module: str = "rag_opt.study", store: Path | None = None
) -> subprocess.CompletedProcess:
    """The process after it ended; its output is in stdout and stderr."""
    environment = os.environ | ({"RAG_OPT_STORE": str(store)} if store else {})
    return subprocess.run(
        command(*overrides, module=module), cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def killed(cwd: Path, *overrides: str, after: int, store: Path) -> int:
    """Start a study, SIGKILL it in the middle of the trial after `after` finished ones; returns how many it told of."""
    environment = os.environ | {"RAG_OPT_STORE": str(store)}
    process = subprocess.Popen(
        command(*overrides), cwd=cwd, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    told = 0
    assert process.stderr is not None
    for line in process.stderr:
        told += line.startswith("trial ")
        if told == after:
            time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    return told


def trials(cwd: Path, name: str) -> list[tuple]:
    """(params, values, state) of the trials that were not interrupted."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{cwd}/studies/{name}/study.db")
    return [(t.params, t.values, t.state) for t in study.trials if "interrupted" not in t.user_attrs]
