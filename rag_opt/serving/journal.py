"""What was asked and answered, on disk until MLflow has it: no request waits for that, and an outage loses none.

One SQLite file for all processes of a service. Requests hand records to a thread that writes them in batches; of what
MLflow has, only the name of its trace is kept, so that a thumb that comes later finds it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import StoreError

FILE = "journal.db"
TABLES = """
create table if not exists entries (id text primary key, at real, wanted integer, record text, trace text);
create table if not exists salt (only integer primary key check (only = 1), value blob);
create index if not exists unsent on entries (at) where wanted and trace is null;
create table if not exists feedback (number integer primary key, id text, record text, sent integer default 0);
create index if not exists unsent_feedback on feedback (number) where not sent;
"""
FIND = "select number, trace, feedback.record from feedback join entries using (id) where not sent and trace not null"
WANTED = "select at, id, record from entries where wanted and trace is null order by at limit ?"
THUMBED = """select at, id, record from entries where not wanted and trace is null
    and id in (select id from feedback where not sent) order by at limit ?"""
"""What is to become a trace anyway, and what a thumb alone makes one: by an index each, where both at once use none."""

THUMBS = "(select id from feedback where not sent)"
DELETE = "delete from entries where"

ROOM = 10_000
"""Records that may wait to be written; where the disk is slower than that, more are lost and counted."""

UNWANTED, SENT = 86_400.0, 30 * 86_400.0
"""Seconds after which what nobody gave a thumb for is forgotten, and the names of traces that MLflow has."""

BATCH = 200
BUSY = 10.0
"""Seconds that a writer waits for another process of the service."""


class Entry(NamedTuple):
    """A record of one request: `wanted` where it is to become a trace, not only if a thumb comes for it."""

    id: str
    at: float
    wanted: bool
    record: Mapping[str, Any]


class Journal:
    """The journal of a service in this folder; raises StoreError where it can't be opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost = 0
        try:
            # People's questions are for no other user of this machine.
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(self._connect()) as base:
                base.executescript(TABLES)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"--state {folder}: no journal can be kept there: {error}") from error
        self.salt = self._read_salt()
        self.prune()
        self._forget_orphans()
        self._queue: queue.Queue[Entry | None] = queue.Queue(ROOM)
        self._waiting = set[str]()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def keep(self, entry: Entry) -> None:
        """Have a record written soon; never waits."""
        # A thumb may come before its record is on disk.
        self._waiting.add(entry.id)
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._lose([entry])

    def add_feedback(self, name: str, record: Mapping[str, Any]) -> bool:
        """Keep a thumb for a request, which becomes a trace if it was none; False where no request has this name."""
        with closing(self._connect()) as base, base:
            known = name in self._waiting or base.execute("select 1 from entries where id = ?", (name,)).fetchall()
            if not known:
                return False
            base.execute("insert into feedback (id, record) values (?, ?)", (name, _dump(record)))
        return True

    def find_unsent(self) -> list[tuple[str, dict[str, Any]]]:
        """(id, record) of requests that are to become traces, the oldest first, at most BATCH."""
        with closing(self._connect()) as base:
            found = [row for query in (WANTED, THUMBED) for row in base.execute(query, (BATCH,))]
        return [(name, json.loads(record)) for _, name, record in sorted(found)[:BATCH]]

    def find_feedback(self) -> list[tuple[int, str, dict[str, Any]]]:
        """(number, trace, record) of thumbs whose request is a trace by now, and that MLflow does not have."""
        with closing(self._connect()) as base:
            rows = base.execute(f"{FIND} order by number limit ?", (BATCH,))
            return [(number, trace, json.loads(record)) for number, trace, record in rows]

    def mark_sent(self, name: str, trace: str) -> None:
        """MLflow has a request as this trace: what was asked and answered is kept here no longer."""
        with closing(self._connect()) as base, base:
            base.execute("update entries set trace = ?, record = '' where id = ?", (trace, name))

    def drop(self, name: str) -> None:
        """Forget a request that can become no trace, and its thumbs."""
        with closing(self._connect()) as base, base:
            base.execute("delete from entries where id = ?", (name,))
            base.execute("delete from feedback where id = ?", (name,))

    def mark_feedback_sent(self, number: int) -> None:
        """MLflow has a thumb."""
        with closing(self._connect()) as base, base:
            base.execute("update feedback set sent = 1, record = '' where number = ?", (number,))

    def count_unsent(self) -> int:
        """Requests that are to become traces."""
        with closing(self._connect()) as base:
            return int(base.execute("select count(*) from entries where wanted and trace is null").fetchone()[0])

    def prune(self) -> None:
        """Forget what nobody gave a thumb for, and what is old."""
        now = time.time()
        with closing(self._connect()) as base, base:
            base.execute(f"{DELETE} not wanted and trace is null and at < ? and id not in {THUMBS}", (now - UNWANTED,))
            base.execute(f"{DELETE} trace not null and at < ?", (now - SENT,))
            base.execute("delete from feedback where sent and id not in (select id from entries)")

    def _forget_orphans(self) -> None:
        """Forget thumbs whose record was lost; at the start, when none is about to be written."""
        with closing(self._connect()) as base, base:
            base.execute("delete from feedback where id not in (select id from entries)")

    def close(self) -> None:
        """Write what was handed over."""
        self._queue.put(None)
        # No longer than a writer waits: the disk may be gone.
        self._thread.join(BUSY)

    def _read_salt(self) -> bytes:
        """What hashes of people are made with, so that nobody finds them by trying; the same in all processes."""
        with closing(self._connect()) as base, base:
            # Of several processes the first to come here decides; `only` lets no second row in.
            base.execute("insert or ignore into salt (only, value) values (1, randomblob(16))")
            return bytes(base.execute("select value from salt").fetchone()[0])

    def hash_user(self, who: str) -> str:
        """What stands for somebody in traces: they are not to name people; "" for nobody."""
        found = hmac.new(self.salt, who.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return found.hexdigest()[:16] if who else ""

    def _connect(self) -> sqlite3.Connection:
        # One for each use: sqlite3 lets no other thread use it, and its own context commits without closing.
        base = sqlite3.connect(self.folder / FILE, timeout=BUSY)
        base.execute("pragma journal_mode = wal")
        # With WAL: a power cut may lose the last records, and damages nothing.
        base.execute("pragma synchronous = normal")
        return base

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            entries, ended = [first], False
            while not self._queue.empty() and len(entries) < BATCH and not ended:
                found = self._queue.get()
                ended = found is None
                entries += [] if found is None else [found]
            try:
                self._insert(entries)
            except sqlite3.Error:
                # A full disk, or a lock held for long: the service goes on.
                self._lose(entries)
            if ended:
                return

    def _lose(self, entries: Sequence[Entry]) -> None:
        self.lost += len(entries)
        self._waiting.difference_update(each.id for each in entries)

    def _insert(self, entries: Sequence[Entry]) -> None:
        rows = [(each.id, each.at, each.wanted, _dump(each.record)) for each in entries]
        with closing(self._connect()) as base, base:
            base.executemany("insert or ignore into entries (id, at, wanted, record) values (?, ?, ?, ?)", rows)
        # Only now: until then a thumb would not find its record.
        self._waiting.difference_update(row[0] for row in rows)


def _dump(record: Mapping[str, Any]) -> str:
    # In ASCII: sqlite3 refuses a text with half a surrogate in it.
    return json.dumps(_hide(record))


def _hide(value: Any) -> Any:
    """The same without secrets in its texts: text by text, since JSON has quotes and backslashes of its own."""
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, Mapping):
        return {key: _hide(each) for key, each in value.items()}
    return [_hide(each) for each in value] if isinstance(value, list | tuple) else value
