"""What language models have answered and what that cost: kept, so that the same request is never paid for twice.

Replies lie in one SQLite file of the store, by the hash of the request; each is written as it comes, so a kill costs
what was under way. They are not evicted: they were paid for. Beside them stands a ledger of payments by study.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from rag_opt.console.screens import report_line
from rag_opt.errors import StoreError
from rag_opt.system.permissions import catch_disk_errors, format_owner, make_file
from rag_opt.system.waiting import STEP, hold_lock, retry_locked

FILE = "replies.db"
# Reasons have a table of their own (unread), so that the replies of stores that had none are read as they are.
TABLES = """
create table if not exists replies
    (key text primary key, text text, tokens_in integer, tokens_out integer, seconds real);
create table if not exists payments
    (study text, stage text, guessed integer, tokens_in integer, tokens_out integer, usd real, seconds real, at real);
create table if not exists unread (key text primary key, reason text);
create index if not exists payments_by_study on payments (study);
create table if not exists identity (id text);
insert into identity select lower(hex(randomblob(8))) where not exists (select * from identity);
"""
KEPT = """select text, tokens_in, tokens_out, seconds, coalesce(reason, '')
from replies left join unread using (key) where key = ?"""
SUM = """select count(*), coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(usd), 0), coalesce(sum(seconds), 0)
from payments where study = ?"""
THOUGHT = "it thought until its tokens were used up; llm.thinking=2048 lets it finish"
"""Why there is no text where a model does not come to its answer."""

BUSY = 60.0
"""Seconds that a writer waits for another."""


@dataclass(frozen=True)
class Reply:
    """What a model said, and what that took; `text` is None where it gave nothing, with the reason.

    A text with a reason is one that could not be read.
    """

    text: str | None
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    reason: str = ""


class Replies:
    """The replies of one store, shared by threads and processes; in memory without a folder.

    The file is opened, and made where there is none, once something is looked for.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._guard = threading.RLock()
        # Of a store in memory; one on disk locks files, which other processes see as well.
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self.mine: Counter[str] = Counter()
        """By stage how many calls this process has paid for."""
        self._base: sqlite3.Connection | None = None

    @property
    def opened(self) -> bool:
        """Whether anything was looked for: no model was asked before that."""
        return self._base is not None

    def get(self, key: str) -> Reply | None:
        """The reply under this key, None where there is none; raises StoreError where the file can't be read."""
        rows = self._execute(KEPT, (key,))
        return Reply(*rows[0]) if rows else None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; one that has a reason as one that could not be read."""
        # The reason goes first: a kill in between leaves no unreadable reply that passes for a readable one.
        row = (key, reply.text, reply.tokens_in, reply.tokens_out, reply.seconds)
        if reply.reason:
            self._execute("insert or replace into unread values (?, ?)", (key, reply.reason))
        self._execute("insert or replace into replies values (?, ?, ?, ?, ?)", row)
        if not reply.reason:
            # Such a kill's reason must not pass for this reply's.
            self._execute("delete from unread where key = ?", (key,))

    def delete_unread(self) -> int:
        """Remove the replies that could not be read, so that they are asked for again; gives how many there were."""
        # Rows first: the table of reasons is what tells which ones they are.
        self._execute("delete from replies where key in (select key from unread)")
        return len(self._execute("delete from unread returning key"))

    def record_payment(self, study: str, stage: str, reply: Reply, usd: float, guessed: int) -> None:
        """Enter what a call has cost; dollars that are not known count as none.

        `guessed` are the tokens that it was expected to read.
        """
        cost = 0.0 if math.isnan(usd) else usd
        # Adding to a Counter is several steps, and calls come from several threads.
        with self._guard:
            self.mine[stage] += 1
        # By the wall clock: `get_means` lays payments of several processes side by side.
        row = (study, stage, guessed, reply.tokens_in, reply.tokens_out, cost, reply.seconds, time.time())
        self._execute("insert into payments values (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def get_means(self) -> dict[str, tuple[float, float, float]]:
        """By stage of paid calls, whatever their study: tokens read for one guessed, tokens written, seconds a call.

        Of calls that were under way at the same time each takes its share: seconds in which there was any, by calls.
        """
        # Payments of pipelines of one's own have 0 guessed tokens.
        wanted = """select stage, sum(tokens_in) * 1.0 / max(1, sum(guessed)), avg(tokens_out)
        from payments group by stage"""
        calls: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for stage, seconds, end in self._execute("select stage, seconds, at from payments"):
            calls[stage].append((end - seconds, end))
        busy = {stage: _measure_union(spans) / len(spans) for stage, spans in calls.items()}
        return {stage: (read, written, busy[stage]) for stage, read, written in self._execute(wanted)}

    def get_spent(self, study: str) -> Expenses:
        """What a study has paid for so far."""
        return Expenses(*self._execute(SUM, (study,))[0])

    @property
    def identity(self) -> str:
        """A name that no other store has."""
        return str(self._execute("select id from identity")[0][0])

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a statement; a file that turns out to be damaged is put aside first."""
        with self._guard:
            base = self._base = self._base or self._open_database()
            try:
                return self._execute_once(base, statement, values)
            except sqlite3.OperationalError as error:
                raise StoreError(
                    f"store.path: {self._path} can't be read or written: {error}{format_owner(self._path)}"
                ) from error
            except sqlite3.DatabaseError:
                # Not OperationalError, which is a DatabaseError, too: a lock or a full disk is no damage.
                base.close()
                self._put_aside()
                base = self._base = self._open_database()
                return self._execute_once(base, statement, values)

    def _execute_once(self, base: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[Any]:
        def tried() -> list[Any]:
            # Commits, or rolls back what failed, so that no transaction stays open.
            with base:
                return base.execute(statement, values).fetchall()

        return retry_locked(self._path, tried, BUSY)

    @contextmanager
    def lock_request(self, key: str) -> Iterator[None]:
        """Nobody else asks for this key meanwhile, in this process or another."""
        if self.root is None:
            with self._locks[key]:
                yield
            return
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        path = self.root / ".locks" / f"reply-{key}.lock"
        with hold_lock(FileLock(path), "is asking a model the same"):
            try:
                yield
            finally:
                # Who waits for it now looks for the reply before asking.
                path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return (self.root or Path()) / FILE

    def _open_database(self) -> sqlite3.Connection:
        if self.root is None:
            # All threads share one connection; `_guard` lets one at a time use it.
            return _create_tables(sqlite3.connect(":memory:", check_same_thread=False))
        with catch_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                raise StoreError(
                    f"store.path: {self._path} can't be opened: {error}{format_owner(self._path)}"
                ) from error
            except sqlite3.DatabaseError:
                self._put_aside()
                return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # Before SQLite makes it, which would keep everybody else from writing it.
        make_file(self._path)
        # SQLite waits one step alone; `retry_locked` goes on waiting, hears signals and says who holds the lock.
        base = sqlite3.connect(self._path, timeout=STEP, check_same_thread=False)
        return retry_locked(self._path, lambda: _create_tables(base), BUSY)

    def _put_aside(self) -> None:
        aside = self._path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        # Beside the new file SQLite would take them for its own.
        for ending in ("-wal", "-shm"):
            self._path.with_name(f"{FILE}{ending}").unlink(missing_ok=True)
        self._path.replace(aside)
        report_line(
            f"store: {self._path} is damaged; it was put aside as {aside.name}, and replies are asked for again"
        )


class NoReplies(Replies):
    """Keeps nothing: for a server, which answers each question anew and leaves none of them anywhere."""

    def __init__(self) -> None:
        super().__init__(None)

    def get(self, key: str) -> None:
        """Nothing is kept."""
        del key

    def put(self, key: str, reply: Reply) -> None:
        """Nothing is kept."""
        del key, reply

    @contextmanager
    def lock_request(self, key: str) -> Iterator[None]:
        """Nobody waits: there would be nothing to find."""
        del key
        yield


def _measure_union(spans: Iterable[tuple[float, float]]) -> float:
    """How long any of these spans lasted."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _create_tables(base: sqlite3.Connection) -> sqlite3.Connection:
    # Readers then wait for no writer.
    base.execute("pragma journal_mode = wal")
    # With this log that loses nothing at a kill; a power cut may cost the last replies.
    base.execute("pragma synchronous = normal")
    base.executescript(TABLES)
    return base


@dataclass(frozen=True)
class Expenses:
    """Paid calls, their tokens (in and out), dollars and seconds."""

    calls: float = 0
    tokens: float = 0
    usd: float = 0.0
    seconds: float = 0.0


NOTHING = Expenses()
