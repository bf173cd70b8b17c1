"""Chat completions as servers really send them → the text, its tokens, how it ended; and what their errors say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rag_opt.components.llm.reply_text import Shown
from rag_opt.system.deadlines import check_waited_for

MANY = 1e9
"""Tokens beyond which a server's count is nonsense."""

LONGEST = 500
"""Characters of an error's message that are told."""


class NoCompletionError(ValueError):
    """An answer of status 200 that is no completion."""


@dataclass(frozen=True)
class Completion:
    """A text (None: none came), the tokens read and written (0: not told), and why it ended (None: not told)."""

    text: str | None
    read: int
    wrote: int
    finish: str | None


def parse_completion(body: Any) -> Completion:
    """What a whole answer holds; raises NoCompletionError."""
    choice = _parse_choice(body)
    if choice is None:
        raise NoCompletionError("the answer has no choices")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise NoCompletionError("the answer is no completion (a choice without a message)")
    text, finish = parse_content(message.get("content")), _parse_finish(choice)
    # Some servers send finish_reason: null with a whole answer, so that alone is no sign of a cut.
    if text is None and finish is None:
        raise NoCompletionError("the answer was cut off")
    return Completion(text, *_parse_usage(body), finish)


class StreamedCompletion:
    """A completion that comes in pieces; `add` gives the text of each."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._usage = (0, 0)
        self._finish: str | None = None
        self._begun = False

    def add(self, chunk: Any) -> str:
        """The text of the next piece; raises NoCompletionError."""
        choice = _parse_choice(chunk)
        # Servers count in the last piece, which has no choice any more, or in each piece what there is so far.
        self._usage = max(self._usage, _parse_usage(chunk))
        if choice is None:
            return ""
        self._begun = True
        self._finish = _parse_finish(choice) or self._finish
        delta = choice.get("delta")
        piece = parse_content(delta.get("content")) if isinstance(delta, Mapping) else None
        self._pieces += [piece] if piece else []
        return piece or ""

    @property
    def whole(self) -> Completion:
        """All that came; raises NoCompletionError where the end did not."""
        if not self._begun:
            raise NoCompletionError("the answer has no choices")
        # Either one shows that the end has come.
        if self._finish is None and not any(self._usage):
            raise NoCompletionError("the answer was cut off")
        return Completion("".join(self._pieces) or None, *self._usage, self._finish)


class Continued:
    """Shows a text as it comes, without what was thought; a stream that is begun anew goes on where the last one broke.

    What it repeats is not shown again; where it says something else, that stands in a line of its own. `text` is what
    has been shown last.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.text = ""
        self._show = show
        self.restart()

    def restart(self) -> None:
        """What comes now is another stream's."""
        self._come = ""
        self._visible = Shown(self._take)

    def __call__(self, piece: str) -> None:
        # What was given up shows nothing more.
        check_waited_for()
        self._visible(piece)

    def finish(self) -> None:
        """This stream has come to its end: what it has said in all is what stands there in the end."""
        self._visible.flush()
        if self._come != self.text:
            self._show(f"\n{self._come}")
            self.text = self._come

    def _take(self, piece: str) -> None:
        self._come += piece
        # Still what was shown before the stream broke.
        if self.text.startswith(self._come):
            return
        same = self._come.startswith(self.text)
        self._show(self._come[len(self.text) :] if same else f"\n{self._come}")
        self.text = self._come


def _parse_choice(body: Any) -> Mapping[str, Any] | None:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(choices, list):
        raise NoCompletionError(f"the answer is no completion ({format_error(body)})")
    if choices and not isinstance(choices[0], Mapping):
        raise NoCompletionError("the answer is no completion (a choice that is none)")
    return choices[0] if choices else None


def parse_content(content: Any) -> str | None:
    """The text of a message's content, which may be a list of parts, such as Mistral's, of which some are thoughts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NoCompletionError("the answer is no text")
    texts = [part if isinstance(part, str) else _parse_part(part) for part in content]
    return "".join(text for text in texts if text) or None


def _parse_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") in ("text", "output_text", None) else None
    return text if isinstance(text, str) else None


def _parse_finish(choice: Mapping[str, Any]) -> str | None:
    found = choice.get("finish_reason")
    return found if isinstance(found, str) and found else None


def _parse_usage(body: Mapping[str, Any]) -> tuple[int, int]:
    usage = body.get("usage")
    # OpenAI sends `usage: null` in every piece but the last.
    usage = usage if isinstance(usage, Mapping) else {}
    return _parse_count(usage.get("prompt_tokens")), _parse_count(usage.get("completion_tokens"))


def _parse_count(value: Any) -> int:
    """A number of tokens as a server tells it; 0 where it is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value < MANY else 0


def format_error(body: Any) -> str:
    """What an error's body says in one line, wherever its makers put it (OpenAI, Mistral, vLLM, TGI, Gemini)."""
    return " ".join(_format_body(body).split())[:LONGEST]


def _format_body(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(map(_format_body, body))
    if not isinstance(body, Mapping):
        return json.dumps(body)
    for name in ("error", "message", "detail", "msg", "errors"):
        if body.get(name):
            return " ".join(filter(None, [_format_location(body.get("loc")), _format_body(body[name])]))
    return json.dumps(body, ensure_ascii=False, default=str)


def _format_location(place: Any) -> str:
    """Where in the request a fault is: `body.seed: `."""
    return ".".join(map(str, place)) + ":" if isinstance(place, Iterable) and not isinstance(place, str) else ""


def get_error_param(body: Any) -> str | None:
    """The parameter that an error is about by its own field, as OpenAI's are."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    found = inner.get("param") if isinstance(inner, Mapping) else None
    return found if isinstance(found, str) else None
