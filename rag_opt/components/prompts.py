"""Prompts: texts of files under conf/prompt/, filled in once; what is filled in is never read as a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rag_opt.components.stage import require

Prompt = Mapping[str, str]
"""The parts of a prompt's file by name: system, user, …"""

Messages = tuple[tuple[str, str], ...]
FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
TAGS = ("question", "documents", "document", "answer", "reference", "existing")
TAG = re.compile(rf"<(?=/?(?:{'|'.join(TAGS)})\b)", re.IGNORECASE)


def check(prompt: Prompt, fields: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError unless the prompt has these parts, with exactly these fields in each: {part: fields}."""
    for part, wanted in fields.items():
        require(isinstance(prompt.get(part), str), f"prompt: its file lacks '{part}:'")
        found = {name for name in FIELD.findall(prompt[part]) if name}
        require(
            found == set(wanted),
            f"prompt: '{part}:' must hold {_told(wanted)}, not {_told(found)}; a brace itself is written twice",
        )


def _told(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(fields)) or "no field"


def messages(prompt: Prompt, part: str = "user", **values: str) -> Messages:
    """The messages of a prompt's part; a text that would close or open one of our own tags has that bracket changed."""
    harmless = {name: TAG.sub("(", value) for name, value in values.items()}

    def filled(found: re.Match[str]) -> str:
        return harmless[found[1]] if found[1] else found[0][0]

    system = (("system", prompt["system"].strip()),) if prompt.get("system") else ()
    return (*system, ("user", FIELD.sub(filled, prompt[part]).strip()))


def numbered(texts: Iterable[str]) -> str:
    """Texts as [1], [2], … a paragraph each."""
    return "\n\n".join(f"[{place}] {text}" for place, text in enumerate(texts, 1))
