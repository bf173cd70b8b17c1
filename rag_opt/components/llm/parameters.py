"""What a request sends beside its messages, under which names; and what an endpoint refuses of that."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_opt.components.checks import require
from rag_opt.components.llm.completions import format_error, get_error_param

if TYPE_CHECKING:
    from rag_opt.components.llm.request import Request

SCHEMA, OBJECT = "json_schema", "json_object"
AS_THEY_ARE: Mapping[str, str | None] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "response_format": SCHEMA,
    "stream_options": "stream_options",
    "system": "system",
}
OTHERS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "max_tokens"),
    "response_format": (OBJECT,),
}
"""What to try where the usual name, or form, is refused, before it is left out."""

WORDS: Mapping[str, str] = {
    "seed": r"(?:random_?)?seed",
    "top_p": "top_?p",
    "temperature": "temperature",
    "stream_options": "stream_?options|include_usage",
    "response_format": r"(?:response|output)[_ ]?format|json_schema|json_object|structured outputs?|guided_json",
    "system": r"system[ _]?(?:role|message|prompt|instruction)s?|(?<=['\"`])system(?=['\"`])|messages\[0\]\.role",
    "max_tokens": "max_?(?:completion_?)?tokens",
}
"""How errors name each, whatever the case; of several that are named the first here is given up."""

LEFT_OUT = {"response_format": "only the prompt asks for JSON", "system": "what it says stands before the question"}
"""What it means that something is not sent."""

# UNKNOWN refuses a name, UNWANTED also a value: of max_tokens that says it is too great, and the name stays.
UNKNOWN = re.compile(
    r"(?i)unsupported|not (?:currently |yet )?(?:be )?support|n[o']t support|unrecogni[sz]ed|unknown|unexpected|"
    r"extra (?:inputs?|fields?|parameters?)|extra_forbidden|(?:not|isn't|aren't) (?:permitted|allowed)|deprecated|"
    r"cannot find field|use '?max_"
)
UNWANTED = re.compile(
    UNKNOWN.pattern
    + r"|(?:un|not |n't )available|only the default|must (?:be|not|contain|have)|cannot|can't|can not|invalid|"
    r"not valid|incompatible|is (?:only )?enabled only|disabled|should be|expected"
)
# Errors about a prompt that is too long speak of max_tokens, too, and refuse no parameter.
TOO_MUCH = re.compile(r"(?i)context (?:length|window|size)|too (?:large|long|many)|at most|maximum|exceed")


def check_parameters(given: Any) -> None:
    """Raise ValueError unless parameters are {one that is known: the name it is sent under, or null}."""
    require(isinstance(given, Mapping), f"llm.parameters={given}: {{seed: null}} or the like is expected")
    for name, to in given.items():
        known = ", ".join(AS_THEY_ARE)
        require(name in AS_THEY_ARE, f"llm.parameters.{name}: this is never sent; known are {known}")
        require(
            to is None or (isinstance(to, str) and bool(re.fullmatch(r"[A-Za-z]\w*", to))),
            f"llm.parameters.{name}={to}: the name it is sent under is expected, or null where it is not sent",
        )
    form = given.get("response_format", SCHEMA)
    require(
        form in (SCHEMA, OBJECT, None),
        f"llm.parameters.response_format={form}: {SCHEMA}, {OBJECT} or null is expected",
    )


def build_parameters(request: Request, thinking: int, *, stream: bool) -> dict[str, Any]:
    """What a request asks for beside its messages, by our names."""
    sampling = request.sampling
    found: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Another seed, or a further attempt could get the same reply.
        "seed": sampling.seed + request.attempt,
        "max_tokens": sampling.max_tokens + thinking,
    }
    if request.schema is not None:
        found["response_format"] = {"name": "reply", "strict": True, "schema": dict(request.schema)}
    if any(role == "system" for role, _ in request.messages):
        # Sent under no name: whether system messages are taken is learnt like a parameter.
        found["system"] = True
    return {**found, **({"stream_options": {"include_usage": True}} if stream else {})}


@dataclass
class Accepted:
    """What an endpoint takes of that for one model: `names` those it is sent under, None for what is left out.

    It begins as configured and loses what is refused by name; `tried` are the names that were refused.
    """

    names: dict[str, str | None]
    tried: set[tuple[str, str | None]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_config(cls, given: Mapping[str, str | None]) -> Accepted:
        """What is taken as far as the configuration knows."""
        return cls({**AS_THEY_ARE, **given})

    def translate_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by the endpoint's own names."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            to = self.names[name]
            if name == "response_format" and to is not None:
                found[name] = {"type": SCHEMA, SCHEMA: value} if to == SCHEMA else {"type": to}
            elif to is not None:
                found[to] = value
        return found

    def learn(self, body: Any, sent: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
        """What an error with this body changes, in words; None where it refuses nothing of what was sent.

        "" where another thread has learnt it meanwhile.
        """
        with self.lock:
            # It was sent before another thread had learnt: what it says is known by now.
            if self.translate_values(values) != sent:
                return ""
            name = find_refused(body, {name for name in values if self.names[name] is not None})
            if name is None:
                return None
            was = self.names[name]
            self.tried.add((name, was))
            left = (to for to in OTHERS.get(name, ()) if (name, to) not in self.tried)
            to = self.names[name] = next(left, None)
        left_out = LEFT_OUT.get(name, "no value of it makes a difference")
        then = f"it is sent as {to}" if to else f"it is left out, {left_out}"
        what = name if was == name else f"{name} ({was})"
        return f"takes no {what}: {then}; llm.parameters.{name}={to or 'null'} spares finding out"


def find_refused(body: Any, names: Collection[str]) -> str | None:
    """Which of these parameters an error's body refuses; None where it is about something else."""
    text = format_error(body)
    if TOO_MUCH.search(text) and not UNKNOWN.search(text):
        return None
    # An error that names its parameter is about nothing else, whatever words its message has (a file system).
    field = get_error_param(body)
    for name, word in WORDS.items():
        # Not \b, to which an underscore is a letter: names are also joined to others by it.
        spoken = re.compile(rf"(?i)(?<![a-z0-9])(?:{word})(?![a-z0-9])")
        # A field of its own begins with the name and may go on behind it.
        meant = spoken.search(text) if field is None else spoken.match(field)
        if name in names and meant:
            return name if (UNKNOWN if name == "max_tokens" else UNWANTED).search(text) else None
    return None
