"""What must be in no file, database or line: passwords in addresses, and keys that the environment holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"

# Hydra puts a backslash before a colon; a port and a path are no password. A file's name has no slash: an address in
# one has something else there.
PASSWORD = re.compile(r"(\\?:[/|]{1,3}[^\s:/@'\"\\]*\\?:)(?!\d{1,5}/)([^\s@'\"]+)(?=@)")
PARAMETERS = (
    re.compile(r"([?&;#]([\w.~%-]{1,64}?)\\?=)([^\s&'\"#<>]+)"),
    re.compile(r"(?i)((?:%3f|%26|%23)([\w.~-]{1,64}?)%3d)((?:(?!%26|%23)[^\s&'\"#<>])+)"),
)
"""Parameters of an address's query or fragment, and of an address within it: what precedes the value, name, value."""

CREDENTIAL = re.compile(
    r"(?i)(signature|secret|password|passwd|token|credentials?|api[-_.]?key|access[-_]?key|access[-_]?(key[-_]?)?id"
    r"|(^|[-_.])(sig|key|pwd|jwt|hmac|auth|authorization)|^(sas|code|policy|session|key-pair-id|hdnea|hdnts))$"
)
"""What such a parameter is called where it grants access, as in presigned addresses."""

GRANT = re.compile(r"eyJ[\w-]{8,}\.[\w.-]{8,}|(?=\D*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[\w~+=-]{32,}")
"""What its value looks like, whatever it is called: a token, or many letters of both cases among digits."""

VARIABLES = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|credentials?)$")
"""Names of environment variables whose values are nobody's business."""

SHORTEST = 8
"""Characters below which a variable's value may be any word."""

_known: set[str] = set()


def register_password(url: str) -> None:
    """Hide from now on the password of this address wherever it turns up, as it is written and as it is meant."""
    for _, password in PASSWORD.findall(url):
        _known.update({password, unquote(password)})


def register_variable(name: str) -> None:
    """Hide from now on what this environment variable holds."""
    if len(value := os.environ.get(name, "").strip()) >= SHORTEST:
        _known.add(value)


def hide_secrets(text: str) -> str:
    """The text without passwords of addresses, parameters of theirs that grant access, and values of key variables."""
    text = PASSWORD.sub(rf"\1{HIDDEN}", text)
    for form in PARAMETERS:
        text = form.sub(_hide_parameter, text)
    # The longest first: a value that is a part of another one would leave the rest of that to be read.
    for value in sorted({*_known, *_iterate_values()}, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _hide_parameter(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return f"{before}{HIDDEN}" if CREDENTIAL.search(unquote(name)) or GRANT.fullmatch(unquote(value)) else found[0]


def _iterate_values() -> Iterator[str]:
    for name, value in os.environ.items():
        # A path to a key is none, and neither is a word without a digit.
        if VARIABLES.search(name) and len(value) >= SHORTEST and re.fullmatch(r"(?!/)(?=.*\d)\S+", value):
            yield value
