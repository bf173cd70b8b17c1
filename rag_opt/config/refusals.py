"""Why Hydra could not compose, in one line, from what its errors say."""

from __future__ import annotations

import re

import yaml

from rag_opt.errors import format_hint


def explain_unreadable(error: Exception, words: str) -> str:
    """Why the files or the words can't be composed, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{mark.name}:{mark.line + 1}: not YAML ({getattr(error, 'problem', error)}); mend this line"
    text = " ".join(str(error).split())
    # LibYAML decodes by itself, and has an error of its own for that.
    if isinstance(error, UnicodeError) or "invalid UTF-8" in text or "incomplete UTF-8" in text:
        return f"a file of the configuration is not UTF-8 text ({text}); look at those in --config-dir"
    if isinstance(error, OSError | yaml.YAMLError):
        return f"a file of the configuration can't be read: {text}"
    return f"{words}: can't be composed: {text[:300]}"


def explain_missing(message: str) -> str:
    wanted = re.search(r"Could not find '(.+?)'", message)
    # Hydra indents by a tab both the choices and, behind them, the search path: provider=…, path=….
    choices = re.findall(r"^\t(?!provider)(\S+)$", message, re.MULTILINE)
    if wanted is None or "/" not in wanted[1]:
        return message.splitlines()[0]
    group, _, choice = wanted[1].rpartition("/")
    return f"{group}={choice}: there is no such choice in conf/{group}/; {format_hint(choice, choices)}"
