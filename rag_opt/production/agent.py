"""A bundle as an MLflow model: OpenAI's Responses in and out, whole or streamed."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

from rag_opt.errors import ModelError
from rag_opt.production.answering import NOTHING, Answerer, open_folder
from rag_opt.production.bundle import BUNDLE
from rag_opt.production.citations import build_citations, count_tokens
from rag_opt.production.streaming import stream_answer
from rag_opt.production.stubs import is_stubbed


class Agent(ResponsesAgent):
    """Answers the last thing that a user has said; what was said before is not read.

    The response's text has a citation for each source, and `custom_outputs.documents` their texts and scores.
    """

    answerer: Answerer

    def load_context(self, context: Any) -> None:
        """Open the bundle among the model's artifacts."""
        # MLflow runs the code of a model in any case: this is part of it.
        self.answerer = open_folder(Path(context.artifacts[BUNDLE]), code=True)

    def predict(  # type: ignore[override]  # MLflow's own base has another signature
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """The answer and its sources."""
        answer = NOTHING if is_stubbed() else self.answerer.ask(get_question(request))
        item = self.create_text_output_item(answer.text, _make_id(), build_citations(answer))
        told = {"documents": [source.to_dict() for source in answer.sources]}
        return ResponsesAgentResponse.model_validate(
            {"output": [item], "usage": count_tokens(answer), "custom_outputs": told}
        )

    def predict_stream(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent]:
        """The answer piece by piece, its sources last."""
        name = _make_id()
        for found in stream_answer(self.answerer, get_question(request)):
            if isinstance(found, str):
                yield ResponsesAgentStreamEvent(**self.create_text_delta(found, name))
                continue
            event = {
                "type": "response.output_item.done",
                "item": self.create_text_output_item(found.text, name, build_citations(found)),
                "custom_outputs": {"documents": [source.to_dict() for source in found.sources]},
            }
            yield ResponsesAgentStreamEvent.model_validate(event)


def get_question(request: ResponsesAgentRequest) -> str:
    """What a user has said last; raises ModelError where no user has said anything."""
    for item in reversed(request.input):
        said = item.model_dump()
        if said.get("role") == "user" and (text := _read_text(said.get("content"))).strip():
            return text
    raise ModelError("input: a message of a user with a question is expected")


def _read_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if isinstance(part.get("text"), str))


def _make_id() -> str:
    return f"msg_{uuid.uuid4().hex}"
