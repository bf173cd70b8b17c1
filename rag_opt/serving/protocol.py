"""What clients send: OpenAI's chat completions and responses, and what there is beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag_opt.serving.admission import RefusedError

LONGEST = 20_000
"""Characters of a question: far more than an encoder reads."""


class Part(BaseModel):
    """A piece of a message; of pictures and sounds nothing is read."""

    text: str = ""


class Message(BaseModel):
    """What somebody says, or another item of a conversation, of which nothing is read."""

    role: str = ""
    content: str | Annotated[list[Part], Field(max_length=1_000, fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        """All that it says."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


Messages = Annotated[list[Message], Field(min_length=1, max_length=1_000, fail_fast=True)]
"""The first mistake ends the reading: telling thousands would take seconds."""


class Asking(BaseModel):
    """What chat completions and responses have in common; parameters that change nothing here are left aside."""

    model_config = ConfigDict(extra="ignore")
    model: str = ""
    stream: bool | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None

    @property
    def messages_(self) -> list[Message]:
        """What was said so far."""
        raise NotImplementedError

    @property
    def who(self) -> str:
        """Who asks, as the client names it; "" where it does not."""
        return self.user or self.safety_identifier or ""

    @property
    def question(self) -> str:
        """What a user has said last; raises RefusedError where there is nothing, or too much."""
        said = next((each.text for each in reversed(self.messages_) if each.role == "user"), "")
        return check_question(said)


class ChatCompletion(Asking):
    """`POST /v1/chat/completions`."""

    messages: Messages
    # One answer is made: who asks for several is refused, not given fewer.
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream_options: dict[str, Any] | None = None

    @property
    def messages_(self) -> list[Message]:
        return self.messages


class Response(Asking):
    """`POST /v1/responses`."""

    input: str | Messages

    @property
    def messages_(self) -> list[Message]:
        return [Message(role="user", content=self.input)] if isinstance(self.input, str) else self.input


class Search(BaseModel):
    """`POST /search`: `top_k` of the sources that would be read."""

    query: str
    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None
    user: Annotated[str, Field(max_length=512)] = ""


class Feedback(BaseModel):
    """`POST /feedback`: a thumb for an answer, by the `id` of the response or its X-Request-ID."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    thumb: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=4_000)] = ""


M = TypeVar("M", bound=BaseModel)


def parse_body(kind: type[M], body: bytes) -> M:
    """The request of a body; raises RefusedError that says what is wrong with it, and repeats nothing of it."""
    try:
        # By pydantic's own reader, which gives up at 200 brackets in one another.
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RefusedError(400, f"{place}: {first['msg']}" if place else str(first["msg"])) from error


def check_question(text: str) -> str:
    """The question; raises RefusedError where there is none, or one that is too long."""
    if not text.strip():
        raise RefusedError(400, "a question is expected: a message of a user with a text")
    if len(text) > LONGEST:
        raise RefusedError(400, f"a question of at most {LONGEST:,} characters is expected")
    return text.strip()
