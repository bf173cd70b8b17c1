"""Who may ask: keys of an environment variable, or of a file that it names, which may change while a service runs."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from rag_opt.console.screens import report_line
from rag_opt.errors import ConfigError

VARIABLE = "RAG_OPT_KEYS"
FILE = "@"
SHORTEST = 16


class Keys:
    """Named keys, of which hashes are kept. `VARIABLE` holds name:key,name:key or @ and the path of a file.

    Such a file has one name:key a line and is read again when it has changed: a line that goes is a key revoked.
    """

    def __init__(self, given: str) -> None:
        self._path = Path(given.removeprefix(FILE)) if given.startswith(FILE) else None
        self._read_at: tuple[int, int] | None = None
        self._known: dict[str, bytes] = {}
        if self._path is None:
            self._known = _parse(given.split(","), VARIABLE)
        self._refresh()

    @classmethod
    def from_environment(cls) -> Keys:
        """The keys of this process; raises ConfigError for one that can't be read or is short."""
        return cls(os.environ.get(VARIABLE, ""))

    @property
    def needed(self) -> bool:
        """Whether a key has to be named: a file without keys lets nobody in."""
        return self._path is not None or bool(self._known)

    def identify(self, key: str) -> str | None:
        """The name of a key; None where it is none. Every key is compared, in constant time."""
        self._refresh()
        given = _hash(key)
        found = [name for name, known in self._known.items() if hmac.compare_digest(known, given)]
        return found[0] if found else None

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            about = self._path.stat()
            # The size, too: two changes may fall into one tick of the disk's clock.
            if (about.st_mtime_ns, about.st_size) == self._read_at:
                return
            lines, first = self._path.read_text("utf-8").splitlines(), self._read_at is None
            self._read_at = about.st_mtime_ns, about.st_size
            # At the start a bad line ends the service; later it must shut out nobody else.
            self._known = _parse(lines, str(self._path)) if first else self._parse_again(lines)
        except (OSError, ValueError) as error:
            if self._read_at is None:
                raise ConfigError(f"{VARIABLE}: the file {self._path} can't be read") from error
            # It was there: whoever has taken it away has revoked all keys.
            self._known = {}

    def _parse_again(self, lines: list[str]) -> dict[str, bytes]:
        """The keys of a file that has changed: a line that can't be read is said, and lets nobody in."""
        found: dict[str, bytes] = {}
        for line in lines:
            try:
                found |= _parse([line], str(self._path))
            except ConfigError as error:
                report_line(str(error))
        return found


def _parse(lines: list[str], where: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for line in filter(None, (line.strip() for line in lines)):
        name, _, key = line.partition(":")
        # The key itself is in no message.
        if not key or not name.strip():
            raise ConfigError(f"{where}: name:key is expected, one a line or apart by commas")
        if len(key.strip()) < SHORTEST:
            raise ConfigError(f"{where}: the key of '{name.strip()}' has fewer than {SHORTEST} characters")
        found[name.strip()] = _hash(key.strip())
    return found


def _hash(key: str) -> bytes:
    # The environment gives bytes that are no UTF-8 as lone surrogates.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
