"""`python -m rag_opt.documents.worker MEGABYTES`: parses files within this memory, a line of JSON each in and out."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from rag_opt.documents.formats import parse_file
from rag_opt.documents.parsed import MomentaryError, UnreadableFileError

RESERVE = 1 << 25
"""Bytes that are let go of when memory is used up, so that this can be said."""


def parse_line(line: str) -> dict[str, object]:
    """The answer to [path, SHA-256, engine]: the file's text as `Parsed.to_json`, or `error`, and whether it stays."""
    path, digest, engine = json.loads(line)
    reserve: bytearray | None = bytearray(RESERVE)
    try:
        return parse_file(_read_bytes(Path(path), digest), Path(path).suffix, engine).to_json()
    except UnreadableFileError as error:
        return {"error": str(error), "momentary": isinstance(error, MomentaryError)}
    except MemoryError:
        del reserve
        return {"error": "it takes more memory than parser.memory_gb allows"}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except Exception as error:
        # Damaged files make libraries raise anything; whatever it is, it is this file's.
        return {"error": f"it is damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def _read_bytes(path: Path, digest: str) -> bytes:
    """The bytes that have this hash; raises MomentaryError where the file has others by now, or can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MomentaryError(f"it can't be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise MomentaryError("it was changed since the folder was listed: run it again")
    return data


def main() -> None:
    """Until nothing more comes in."""
    # Windows has no such limit: there only the time is bounded.
    if sys.platform != "win32":
        import resource

        limit = int(sys.argv[1]) << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(f"{json.dumps(parse_line(line))}\n")
        answers.flush()


if __name__ == "__main__":
    main()
