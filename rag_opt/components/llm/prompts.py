"""Prompts: texts of files under conf/prompt/, filled in once; what is filled in is never read as a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rag_opt.components.checks import require

if TYPE_CHECKING:
    from rag_opt.components.llm.request import Messages

Prompt = Mapping[str, str]
"""The parts of a prompt's file by name: system, user, …"""

FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
TAGS = ("question", "documents", "document", "answer", "reference", "existing", "think", "thinking")
UNSEEN = (
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufe00-\ufe0f\ufeff]*"
)
"""Space and what has no shape, which a model reads over."""

WIDE = 0xFEE0
"""How far the full-width form of a character of ASCII stands from it."""


def _build_tag_pattern(name: str) -> str:
    """The pattern of a tag's name in either width, with unseen characters between its letters; case is ignored."""
    return UNSEEN.join(f"[{letter}{chr(ord(letter) + WIDE)}]" for letter in name)


_NAME = rf"(?:{'|'.join(map(_build_tag_pattern, TAGS))})(?![^\W_])"
# The bracket < in every shape that a model may read as one, entities included.
_BRACKET = "(?:[<\uff1c\ufe64\u2039\u3008\u27e8]|&lt;|&#0*60;|&#x0*3c;)"
_SLASH = r"[/\\\uff0f\u2044\u2215]"
# DeepSeek writes <\uff5cend\u2581of\u2581sentence\uff5c>.
_MARK = r"(?:\|\w{1,40}\||\uff5c[\w\u2581]{1,40}\uff5c)>"
TAG = re.compile(
    rf"{_BRACKET}(?={_NAME}|(?:{UNSEEN}{_SLASH})+{UNSEEN}{_NAME}|{UNSEEN}{_NAME}[^<>\uff1c\uff1e]{{0,80}}[>\uff1e]|{_MARK})",
    re.IGNORECASE,
)
"""The bracket of what could open or close a tag of ours however it is spelt, or of a chat template's own <|im_end|>."""


def check_prompt(prompt: Prompt, fields: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError unless the prompt has these parts, with exactly these fields in each: {part: fields}."""
    for part, wanted in fields.items():
        require(isinstance(prompt.get(part), str), f"prompt: its file lacks '{part}:'")
        found = {name for name in FIELD.findall(prompt[part]) if name}
        require(
            found == set(wanted),
            f"prompt: '{part}:' must hold {_format_fields(wanted)}, not {_format_fields(found)}; a brace itself "
            "is written twice",
        )


def _format_fields(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(fields)) or "no field"


def build_messages(prompt: Prompt, part: str = "user", **values: str) -> Messages:
    """The messages of a prompt's part; a text that would close or open one of our own tags has that bracket changed."""
    harmless = {name: TAG.sub("(", value) for name, value in values.items()}

    def filled(found: re.Match[str]) -> str:
        # Of a doubled brace one stands.
        return harmless[found[1]] if found[1] else found[0][0]

    system = (("system", prompt["system"].strip()),) if prompt.get("system") else ()
    return (*system, ("user", FIELD.sub(filled, prompt[part]).strip()))


def build_examples(prompt: Prompt, messages: Messages) -> Messages:
    """Messages with the prompt's `examples` as turns before the last: blocks of what is asked and, below it, a reply.

    Small models follow turns where they would go on with examples that stand in one text.
    """
    blocks = [block.strip().split("\n", 1) for block in prompt.get("examples", "").split("\n\n") if block.strip()]
    turns = [turn for asked, said in blocks for turn in (("user", asked), ("assistant", said))]
    return (*messages[:-1], *turns, messages[-1])


def number_texts(texts: Iterable[str]) -> str:
    """Texts as [1], [2], … a paragraph each."""
    return "\n\n".join(f"[{place}] {text}" for place, text in enumerate(texts, 1))
