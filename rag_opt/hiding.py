"""What must be in no file, database or line: passwords in addresses, and keys that the environment holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"

# Hydra puts a backslash before a colon; a port and a path are no password.
PASSWORD = re.compile(r"(\\?:/{1,3}[^\s:/@'\"\\]*\\?:)(?!\d{1,5}/)([^\s@'\"]+)(?=@)")
PARAMETER = re.compile(r"(?i)([?&](?:api[_-]?key|key|token|access[_-]?token|secret|password|signature)=)([^\s&'\"#]+)")

VARIABLES = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|credentials?)$")
"""Names of environment variables whose values are nobody's business."""

SHORTEST = 8
"""Characters below which a variable's value may be any word."""

_known: set[str] = set()


def know(url: str) -> None:
    """Hide from now on the password of this address wherever it turns up, as it is written and as it is meant."""
    for _, password in PASSWORD.findall(url):
        _known.update({password, unquote(password)})


def know_variable(name: str) -> None:
    """Hide from now on what this environment variable holds."""
    if len(value := os.environ.get(name, "").strip()) >= SHORTEST:
        _known.add(value)


def hide(text: str) -> str:
    """The text without passwords of addresses, key parameters of theirs, and the values of key variables."""
    text = PARAMETER.sub(rf"\1{HIDDEN}", PASSWORD.sub(rf"\1{HIDDEN}", text))
    for value in sorted({*_known, *_values()}, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _values() -> Iterator[str]:
    for name, value in os.environ.items():
        # A path to a key is none, and neither is a word without a digit.
        if VARIABLES.search(name) and len(value) >= SHORTEST and re.fullmatch(r"(?!/)(?=.*\d)\S+", value):
            yield value
