"""A command line as people type it → words as Hydra reads them: what is text stays the text that was typed.

Hydra's grammar reads 3.10 as a number, 42 as another, a comma as a sweep, and refuses letters beyond ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

WORD = re.compile(r"(?P<key>[+]{0,2}[A-Za-z_][\w./-]*)=(?P<value>.*)", re.DOTALL)

FREE = ("question",)
"""Keys whose value is anything at all."""

TEXTS = ("name", "path", "documents", "questions", "qrels", "model", "url", "base_url", "uri", "artifacts", "address")
"""Last parts of keys whose values are texts, where Hydra itself does not read one."""

PLACES = ("studies_dir", "tracking.experiment", "best")
SEARCH_PATH = "hydra.searchpath"
INTERPOLATION = re.compile(r"(\\*)\$\{")
# The name of a folder may hold a comma: only one in front of another scheme divides.
BETWEEN_PATHS = re.compile(r",\s*(?=(?:file|pkg|structured)://)")
OWN_SYNTAX = re.compile(r"""\s*(?:['"[{]|choice\(|glob\(|tag\(|sort\(|shuffle\(|extend_list\()|.*\$\{""", re.DOTALL)
"""Hydra's own ways to write a value: quotes, lists, functions, interpolations."""


def quote_arguments(words: Sequence[str], *, multirun: bool = False) -> list[str]:
    """The words with those of text quoted wherever Hydra would read another value than was typed, or none."""
    return [_quote_argument(word, multirun=multirun) for word in words]


def _quote_argument(word: str, *, multirun: bool) -> str:
    found = WORD.fullmatch(word)
    if found is None:
        return word
    key, value = found["key"].lstrip("+"), found["value"]
    if key in FREE:
        return f"{found['key']}={quote_text(value)}"
    if key == SEARCH_PATH:
        return word if _try_parse(word) is not None else f"{key}={_format_paths(value)}"
    if not _is_text(key) or OWN_SYNTAX.match(value):
        return word
    # A comma divides a sweep in a multirun, and is part of the text elsewhere.
    elements = value.split(",") if multirun else [value]
    return f"{found['key']}={','.join(_quote_element(key, each) for each in elements)}"


def _is_text(key: str) -> bool:
    return key in PLACES or (key.rpartition(".")[2] in TEXTS and "/" not in key)


def _quote_element(key: str, value: str) -> str:
    """The value as it is where Hydra reads a text (or null, which stands for none), else quoted."""
    override = _try_parse(f"key={value}")
    if override is not None and not override.is_sweep_override():
        read = override.value()
        # Every study has a name, so there null is one.
        if isinstance(read, str) or (read is None and key != "name"):
            return value
    return quote_text(value, interpolated=True)


def _format_paths(value: str) -> str:
    inner = value.removeprefix("[").removesuffix("]") if value.startswith("[") else value
    return format_path_list([each.strip("'\"") for each in BETWEEN_PATHS.split(inner)])


def format_path_list(paths: Sequence[str]) -> str:
    """The value of hydra.searchpath for these paths, whatever letters are in them."""
    # Hydra reads this one before there is anything to interpolate.
    return f"[{','.join(quote_text(path, interpolated=True) for path in paths)}]"


def quote_text(text: str, *, interpolated: bool = False) -> str:
    """The text in quotes, so that Hydra and OmegaConf read exactly it; `interpolated` leaves `${…}` its meaning."""
    # OmegaConf halves backslashes before `${`: n of them and the dollar sign survive as 2n + 1.
    kept = text if interpolated else INTERPOLATION.sub(r"\1\1\\${", text)
    return QuotedString(text=kept, quote=Quote.single).with_quotes()


def unquote_argument(word: str) -> str:
    """The word as one may type it: without quotes that `quote_arguments` adds again."""
    key, _, value = word.partition("=")
    # Unquoted only where typing it would give the very same word: a command that is shown has to be that command.
    override = _try_parse(word) if value.startswith("'") else None
    read = override.value() if override is not None else None
    return (
        f"{key}={read}" if isinstance(read, str) and _quote_argument(f"{key}={read}", multirun=False) == word else word
    )


@lru_cache(maxsize=1024)
def _try_parse(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
