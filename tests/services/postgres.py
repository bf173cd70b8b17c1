"""A PostgreSQL server of one's own: on a free port of this machine, in a folder, as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

TRUST = ["-A", "trust", "-U", "rag_opt", "--no-sync", "-E", "UTF8", "--locale=C"]
FAST = ["fsync=off", "unix_socket_directories=", "listen_addresses=127.0.0.1", "max_connections=200"]


def copy_pgvector(target: Path) -> Path:
    """The programs of a server that has pgvector, copied from the package pgserver: Debian 12 has none."""
    import pgserver

    place = Path(pgserver.__file__).parent
    # Its libraries are found beside it. Copied, since packages may lie where another user may not look.
    shutil.copytree(place.with_name("pgserver.libs"), target / "pgserver.libs")
    return shutil.copytree(place / "pginstall", target / "pgserver" / "pginstall") / "bin"


def binaries() -> Path | None:
    """Where the server's programs lie; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


class Server:
    """The server; `url` is a database of it."""

    def __init__(self, *, pgvector: bool = False) -> None:
        # Not below pytest's folder, which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="rag_opt-postgres-"))
        self.folder.chmod(0o755)
        found = copy_pgvector(self.folder) if pgvector else binaries()
        assert found is not None
        self.binaries, self.data = found, self.folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data.mkdir()
        if self._user():
            shutil.chown(self.data, self._user())
        self._run("initdb", "-D", str(self.data), *TRUST)
        self.start()

    def start(self) -> None:
        options = " ".join(f"-c {option}" for option in [*FAST, f"port={self.port}"])
        self._run("pg_ctl", "-D", str(self.data), "-o", options, "-l", str(self.data / "log"), "-w", "start")

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", how, "-w", "stop")

    def close(self) -> None:
        """Stop, and leave nothing."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "rag_opt", name)
        return f"postgresql://rag_opt@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user()
        subprocess.run(
            [str(self.binaries / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            start_new_session=True,
        )

    def _user(self) -> str | None:
        """The server refuses root."""
        return "nobody" if os.geteuid() == 0 else None
