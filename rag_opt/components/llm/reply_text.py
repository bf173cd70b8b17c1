"""What a model's text says: without its thinking, and as the JSON that it was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

R = TypeVar("R")

NAMES = r"(?:\w+:)?(?:think|thinking|thought|reasoning)"
OPENS = (
    rf"<\s*{NAMES}\b[^<>]{{0,40}}>",  # DeepSeek R1, Qwen3 and most others
    r"\[THINK\]",  # Magistral
    "◁think▷",  # Kimi
    r"<\|START_THINKING\|>",  # Command A
    r"<\|channel>thought",  # Gemma
    r"<\|channel\|>(?:analysis|commentary)\b[^<]{0,40}<\|message\|>",  # gpt-oss
)
CLOSES = (
    rf"</\s*{NAMES}\s*>",
    r"\[/THINK\]",
    "◁/think▷",
    r"<\|END_THINKING\|>",
    r"<channel\|>",
    r"<\|channel\|>final\b[^<]{0,40}<\|message\|>",
)
QUOTED = r"(?<![`'\"“\u2018])"
"""A tag in quotation marks is spoken of, not used."""

OPEN = re.compile(f"{QUOTED}(?:{'|'.join(OPENS)})", re.IGNORECASE)
CLOSE = re.compile(f"{QUOTED}(?:{'|'.join(CLOSES)})", re.IGNORECASE)
# At the beginning of a line alone: in the midst of one a tag is spoken of.
BLOCK = re.compile(rf"^[ \t]*{OPEN.pattern}.*?{CLOSE.pattern}", re.IGNORECASE | re.DOTALL | re.MULTILINE)
# The longest opening tag, gpt-oss', has up to 72 characters.
LONGEST_TAG = 80
NUMBER = re.compile(r"\s*\+?(\d{1,9})(?:\.0*)?\s*")
MOST_STARTS = 1_000
"""Braces in a text at which an object is looked for."""


def remove_thinking(text: str) -> str:
    """The text without the blocks in which a model thinks, also one whose opening tag stood in the prompt.

    A block that never ends is all that follows. A text that is JSON as a whole stays as it is; where nothing but
    thinking was written, "".
    """
    if not OPEN.search(text) and not CLOSE.search(text):
        return text
    # JSON that speaks of a tag in one of its texts is an answer and no thought.
    if _is_json(text):
        return text
    kept = BLOCK.sub("", text)
    last = None
    for last in CLOSE.finditer(kept):  # noqa: B007
        pass
    # After an opening tag it is the text that speaks of tags: "Write <think> first and </think> last."
    if last is not None and not OPEN.search(kept, 0, last.start()):
        kept = kept[last.end() :]
    if OPEN.match(kept.lstrip()):
        return ""
    return text if kept == text else kept.strip()


class Shown:
    """Shows a text as it comes, but for the thinking that it begins with; `flush` shows what was still held back."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._held = ""
        self._open = True

    def __call__(self, piece: str) -> None:
        if not self._open:
            self._show(piece)
            return
        self._held += piece
        head = self._held.lstrip()
        # It may still become a tag, so it is held back until that is decided.
        if not head or (head[0] in "<[◁" and len(head) < LONGEST_TAG and not OPEN.match(head)):
            return
        if not OPEN.match(head):
            self.flush()
        elif (closed := CLOSE.search(head)) and (rest := head[closed.end() :].lstrip()):
            self._held = rest
            self.flush()

    def flush(self) -> None:
        """Show what could still have been the beginning of a tag."""
        if self._open and self._held and not OPEN.match(self._held.lstrip()):
            self._show(self._held)
        self._held, self._open = "", False


def parse_json(text: str, read: Callable[[Any], R | None]) -> R | None:
    """What `read` makes of the last JSON object of which it makes anything, words and fences around it or not.

    None where there is no such object.
    """
    # From the end, since a model may repeat the form that was asked for before it answers.
    for whole in reversed(_find_objects(text)):
        for found in _iter_objects(whole):
            if (value := read(found)) is not None:
                return value
    return None


def _find_objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text that are in no other one."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    place, starts = text.find("{"), 0
    # Each try may read all that follows its brace: without a limit a text full of them takes quadratic time.
    while place >= 0 and starts < MOST_STARTS:
        starts += 1
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except (ValueError, RecursionError):
            # RecursionError: brackets can be nested deeper than Python's stack.
            end = place + 1
        place = text.find("{", end)
    return found


def _iter_objects(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An object, then those that are its values."""
    yield found
    yield from (value for value in found.values() if isinstance(value, dict))


def parse_integer(value: Any) -> int | None:
    """The number that 4, 4.0, "4" and "4.0" stand for; None for anything else."""
    if isinstance(value, str):
        found = NUMBER.fullmatch(value)
        return int(found[1]) if found else None
    # Not by `>=`, which nan would pass.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        return None
    return int(value) if value == int(value) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
