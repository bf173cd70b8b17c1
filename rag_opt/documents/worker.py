"""`python -m rag_opt.documents.worker MEGABYTES`: parses files within this memory, a line of JSON each in and out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rag_opt.documents.formats import parse_file
from rag_opt.documents.parsed import UnreadableFileError

RESERVE = 1 << 25
"""Bytes that are let go of when memory is used up, so that this can be said."""


def parse_line(line: str) -> dict[str, object]:
    """What the answer to a line is: the file's text as `Parsed.to_json`, or `error`."""
    path, engine = json.loads(line)
    reserve: bytearray | None = bytearray(RESERVE)
    try:
        return parse_file(Path(path).read_bytes(), Path(path).suffix, engine).to_json()
    except UnreadableFileError as error:
        return {"error": str(error)}
    except MemoryError:
        del reserve
        return {"error": "it takes more memory than parser.memory_gb allows"}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except Exception as error:
        # Damaged files make libraries raise anything; whatever it is, it is this file's.
        return {"error": f"it is damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def main() -> None:
    """Until nothing more comes in."""
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
