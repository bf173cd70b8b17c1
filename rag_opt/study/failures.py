"""Whose failure it is: the configuration's, or that of what surrounds a study: disk, memory, network, a service.

What surrounds a study fails for all configurations alike, so such a failure takes no trial's place, teaches the sampler
nothing, and is tried again. Of some kinds (memory, time) the configuration itself may be the cause: it is tried again
after another one, and what fails ALIKE times while others are measured has failed by itself.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import OutageError, StoreError
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.storages.snapshot import StudySnapshot, Trials

ALIKE = 3
"""Failures in a row with the same cause after which a study stops."""

PAUSES = (1.0, 4.0)
"""Seconds before a configuration is tried again, after the first such failure in a row and after later ones."""


class Cause(Enum):
    """What has failed around a study: in words, what to do, and whether no configuration can be at fault."""

    DISK = "the disk is full", "free some space, or name another place with store.path= and studies_dir=", True
    FILES = "files can't be read or written", "see to the disk, the folder's permissions and its mount", True
    MEMORY = "the memory is full", "end other programs, or leave the largest models out of the search space", False
    NETWORK = "the network or a service can't be reached", "see that the server runs and the address is right", True
    SILENCE = "a service answers too late or not to the end", "see to the server, or raise its timeout", False
    KEY = "a service refuses the key", "see to the environment variable that names it", True
    LIMIT = "a service wants no more calls for now", "wait, or ask for a greater quota", True
    SERVICE = "a service is out of order", "see to the server", True
    ERRORS = "a service answers with an error of its own", "see to the server's log", False
    DATABASE = "a database can't be used", "see to the database", True

    def __init__(self, told: str, advice: str, certain: bool) -> None:
        self.told = told
        self.advice = advice
        self.certain = certain


ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), Cause.DISK),
    **dict.fromkeys((errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE), Cause.FILES),
    errno.ENOMEM: Cause.MEMORY,
    **dict.fromkeys((errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EHOSTDOWN), Cause.NETWORK),
    **dict.fromkeys((errno.ENETUNREACH, errno.ENETDOWN), Cause.NETWORK),
}
STATUSES = {
    **dict.fromkeys((401, 403, 407), Cause.KEY),
    **dict.fromkeys((402, 429), Cause.LIMIT),
    **dict.fromkeys((502, 503, 504, 529), Cause.SERVICE),
    408: Cause.SILENCE,
    500: Cause.ERRORS,
}
SQLITE = {
    sqlite3.SQLITE_FULL: Cause.DISK,
    sqlite3.SQLITE_NOMEM: Cause.MEMORY,
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN), Cause.DATABASE),
    **dict.fromkeys((sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY), Cause.DATABASE),
}
NAMES = {
    **dict.fromkeys(("MemoryError", "OutOfMemoryError"), Cause.MEMORY),
    **dict.fromkeys(("gaierror", "ConnectError", "NewConnectionError", "NameResolutionError"), Cause.NETWORK),
    **dict.fromkeys(("ClientConnectorError", "ProxyError", "LocalEntryNotFoundError"), Cause.NETWORK),
    **dict.fromkeys(("OfflineModeIsEnabled", "ConnectionRefusedError"), Cause.NETWORK),
    **dict.fromkeys(("ConnectionError", "ReadError", "WriteError", "APIConnectionError"), Cause.SILENCE),
    **dict.fromkeys(("RemoteProtocolError", "ChunkedEncodingError", "IncompleteRead"), Cause.SILENCE),
}
"""By the name of an exception's class or of one it derives from: each HTTP client has its own."""

STATUS = ("status_code", "status", "code")
"""What HTTP clients call the status."""

TIMEOUT = re.compile(r"Time(d)?[oO]ut")
DRIVERS = ("psycopg", "psycopg2", "asyncpg", "pymysql")
TEXTS = {
    re.compile(r"no space left|disk is full|disk quota exceeded", re.IGNORECASE): Cause.DISK,
    re.compile(r"out of memory|can(no|')t allocate memory|bad_alloc", re.IGNORECASE): Cause.MEMORY,
}
"""What libraries written in C say, whose exceptions tell nothing apart."""

MISSING = ("RepositoryNotFoundError", "RevisionNotFoundError")
"""The hub answers 401 where there is no such model: the configuration's failure."""


def find_cause(error: BaseException, troubles: Mapping[str, str | Exception] | None = None) -> Cause | None:
    """What surrounds the study and has failed, as an exception and its causes tell; None for a configuration's own.

    `troubles`: by stage the last failure of a call that left questions without an answer.
    """
    calls = [trouble for trouble in (troubles or {}).values() if isinstance(trouble, Exception)]
    whole = [each for one in (error, *calls) for each in _iterate_chain(one)]
    if any(type(each).__name__ in MISSING for each in whole):
        return None
    found = [cause for each in whole if (cause := _classify_error(each)) is not None]
    if not found:
        return Cause.FILES if any(isinstance(each, StoreError) for each in whole) else None
    # One that no configuration can bring about outweighs those that it can, wherever in the chain it stands.
    return next((cause for cause in found if cause.certain), found[0])


def _iterate_chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised for, outermost first."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        # By identity: a chain may lead back into itself, and an exception may define its own equality.
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            before = each.__cause__ or each.__context__
            waiting += [] if before is None else [before]
            waiting += getattr(each, "exceptions", ()) if isinstance(each, BaseExceptionGroup) else ()


def _classify_error(error: BaseException) -> Cause | None:
    """What one exception says by itself."""
    if isinstance(error, sqlite3.Error):
        # Python gives SQLite's extended code, such as SQLITE_IOERR_WRITE; its low byte is the primary one.
        return SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if (status := _get_status(error)) is not None:
        return STATUSES.get(status)
    if isinstance(error, OSError) and error.errno in ERRNO:
        return ERRNO[error.errno]
    return _classify_by_class(error) or _classify_by_text(error)


def _classify_by_class(error: BaseException) -> Cause | None:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if any(TIMEOUT.search(kind) for kind in kinds):
        return Cause.SILENCE
    if kinds[0] in ("OperationalError", "InterfaceError") and type(error).__module__.partition(".")[0] in DRIVERS:
        return Cause.DATABASE
    return next((NAMES[kind] for kind in kinds if kind in NAMES), None)


def _get_status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries."""
    holders = (error, getattr(error, "response", None))
    found = next((code for each in holders for name in STATUS if (code := getattr(each, name, None))), None)
    # A client's `code` may be a text (OpenAI's error codes), and SystemExit's is an exit status.
    return found if type(found) is int and found >= 400 else None


def _classify_by_text(error: BaseException) -> Cause | None:
    # Of any other exception the text may quote a document or an answer that speaks of a full disk.
    foreign = type(error).__module__.partition(".")[0] in ("chromadb", "pyarrow", "safetensors", "safetensors_rust")
    if not foreign and not isinstance(error, OSError) and type(error) is not RuntimeError:
        return None
    return next((cause for text, cause in TEXTS.items() if text.search(str(error))), None)


def format_reason(error: BaseException, troubles: Mapping[str, str | Exception]) -> str:
    """Why a trial failed, in a line: the error, and what calls of its stages failed with."""
    try:
        text = str(error)
    except Exception:
        # Whoever writes an exception may get its text wrong, too.
        text = "its text can't be made"
    causes = "".join(f"; {stage}: {why}" for stage, why in troubles.items() if str(why) not in text)
    return hide_secrets(f"{type(error).__name__}: {text}{causes}")[:2000]


def get_outage(trial: FrozenTrial) -> Cause | None:
    """What has ended a trial from outside; None for any other."""
    name = get_attributes(trial).outage
    return Cause[name] if name in Cause.__members__ else None


def find_retriable(now: StudySnapshot) -> list[FrozenTrial]:
    """The trials that were ended when it was known what they measure, and that were not tried again yet."""
    trials = now.get_trials()
    again = {get_attributes(trial).retries for trial in trials}
    return [trial for trial in trials if get_attributes(trial).interrupted and trial.number not in again]


def find_postponed(now: StudySnapshot, since: int) -> list[FrozenTrial]:
    """Of the trials to repeat those whose configuration may be at fault, until another one was measured.

    Of those that are numbered from `since` on: a command begins with what an earlier one has left.
    """
    measured = [trial.number for trial in now.get_trials() if trial.state.is_finished() and not _is_unmeasured(trial)]
    last = max(measured, default=-1)
    causes = ((trial, get_outage(trial)) for trial in find_retriable(now) if trial.number >= since)
    return [trial for trial, cause in causes if cause is not None and not cause.certain and trial.number > last]


def _is_unmeasured(trial: FrozenTrial) -> bool:
    noted = get_attributes(trial)
    return noted.interrupted or noted.repeats is not None


def get_attempts(now: StudySnapshot, trial: FrozenTrial, since: int) -> list[FrozenTrial]:
    """The outages that a configuration met one after the other, up to this trial, the latest first."""
    found: list[FrozenTrial] = []
    trials = now.get_trials()
    while trial.number >= since and (get_outage(trial) is not None or not found):
        found.append(trial)
        before = get_attributes(trial).retries
        if before is None:
            break
        trial = trials[before]
    return found


def is_own_failure(now: StudySnapshot, number: int, cause: Cause, since: int) -> bool:
    """Whether a configuration that fails once more has failed by itself: others are measured, it never is."""
    if cause.certain or len(get_attempts(now, now.get_trials()[number], since)) < ALIKE:
        return False
    return any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) and not _is_unmeasured(t) for t in now.get_trials())


def get_failure_streak(now: StudySnapshot, since: int) -> list[FrozenTrial]:
    """The latest failures in a row, or of one configuration, that have the same cause outside, the latest first."""
    # What was stopped, and what repeats another trial, says nothing.
    told = [t for t in now.get_trials() if t.number >= since and t.datetime_complete is not None]
    told = [t for t in told if get_outage(t) is not None or not _is_unmeasured(t)]
    latest = sorted(told, key=lambda trial: (trial.datetime_complete, trial.number), reverse=True)
    rows = [
        _select_same_cause(latest),
        *(_select_same_cause(get_attempts(now, trial, since)) for trial in find_retriable(now)),
    ]
    return max(rows, key=len)


def check_outage(now: StudySnapshot, since: int) -> None:
    """Raise OutageError when the latest trials, numbered from `since` on, failed ALIKE times in a row from outside."""
    row = get_failure_streak(now, since)
    if len(row) < ALIKE:
        return
    cause = get_outage(row[0])
    assert cause is not None
    reason = (get_attributes(row[0]).reason or "").removeprefix(f"{cause.told}: ")
    raise build_outage_error(f"{_format_trial_count(len(row))} in a row failed alike", cause, reason)


def _select_same_cause(latest: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    cause = get_outage(latest[0]) if latest else None
    found: list[FrozenTrial] = []
    for trial in latest if cause is not None else ():
        if get_outage(trial) is not cause:
            break
        found.append(trial)
    return found


def build_outage_error(what: str, cause: Cause, reason: str) -> OutageError:
    """The error that says what has failed from outside, why, and what to do."""
    return OutageError(
        f"{what}: {cause.told}\n  {reason}\n  {cause.advice}; nothing that was measured is lost: the same command goes "
        "on from here"
    )


def format_failures(study: Trials) -> list[str]:
    """How many trials failed, and of what, in a line each: by themselves, and by what surrounds the study."""
    every = study.get_trials(deepcopy=False)
    trials = [trial for trial in every if trial.state == TrialState.FAIL]
    own = Counter(_shorten_reason(t) for t in trials if not _is_unmeasured(t) and not get_attributes(t).given_up)
    lost = [trial for trial in trials if get_outage(trial) is not None]
    outside = Counter(cause.told for trial in lost if (cause := get_outage(trial)) is not None)
    again = {get_attributes(trial).retries for trial in every}
    left = sum(trial.number not in again for trial in lost)
    lines = []
    if own:
        lines.append(f"{_format_trial_count(own.total())} failed: {_format_counts(own)}")
    if outside:
        then = f"{'' if left == len(lost) else f'{left} of them '}to be tried again" if left else "and tried again"
        lines.append(
            f"{_format_trial_count(len(lost))} lost to what surrounds the study, {then}: {_format_counts(outside)}"
        )
    return lines


def _format_trial_count(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def _shorten_reason(trial: FrozenTrial) -> str:
    """A failure's reason without the numbers in which like ones differ."""
    return re.sub(r"\d+(\.\d+)?", "…", get_attributes(trial).reason or "no reason was kept")[:120]


def _format_counts(found: Counter[str]) -> str:
    told = [f"{count} × {reason}" for reason, count in found.most_common(3)]
    rest = found.total() - sum(count for _, count in found.most_common(3))
    return "; ".join([*told, *([f"{rest} × something else"] if rest else [])])
