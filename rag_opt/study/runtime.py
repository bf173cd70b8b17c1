"""What a process at work on a study has in hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_opt.storages.processes import NOBODY, WorkerOrigin

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from rag_opt.console.progress import Screen
    from rag_opt.storages.locks import Member
    from rag_opt.study.plan import Plan
    from rag_opt.system.signals import Stopping

Callback = Callable[["optuna.Study", "FrozenTrial"], None]


@dataclass
class Runtime:
    """What a process at work on a study has, whether it measures or has others measure."""

    plan: Plan
    study: optuna.Study
    screen: Screen
    member: Member
    stopping: Stopping
    callbacks: Sequence[Callback] = ()
    origin: WorkerOrigin = NOBODY
