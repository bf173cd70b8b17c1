"""Which requests a server on this machine answers: those of its own pages, and of programs, which send no Origin.

A page of another site that has its name point here sends its own Host; one that asks from afar sends its Origin, and so
does a page that another program on this machine serves (`http://localhost:3000`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
READING = ("GET", "HEAD")
PATH = re.compile(r"(?!.*(\.\.|//|\d{19}))[!-\[\]-~]{1,2000}")
"""Paths as they are on these servers: no control characters, steps up, or numbers that no database has."""


def explain_refusal(method: str, headers: Mapping[str, str], port: int) -> str | None:
    """Why a request with these headers (names in lower case) is refused; None for one that is not."""
    own = {f"{name}:{port}" for name in NAMES}
    # Against DNS rebinding: the browser takes such a page for one of this server's, and may send no Origin.
    if headers.get("host", "").lower() not in own:
        return f"this answers to {' and '.join(sorted(own))} only"
    # Programs and older browsers send no Sec-Fetch-Site: of these the Origin alone decides.
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if origin is not None and (urlsplit(origin).scheme != "http" or urlsplit(origin).netloc.lower() not in own):
        return "this answers to its own pages only"
    # A link that somebody follows to here shows a page to that person, and to no script of the page it was on.
    asked = method in READING and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("same-origin", "none") and not asked:
        return "this answers to its own pages only"
    return None
