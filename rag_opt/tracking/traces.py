"""Questions as MLflow traces: what each part of a pipeline found, ordered, asked and said, to be opened one by one.

Pipelines work on batches, so a question is asked once more, alone; what was computed or paid for comes from the store,
and spans have the seconds that their work took when it was done. Where OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set,
MLflow exports the same traces by OTLP, beside keeping them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Document as Found
from mlflow.entities import SpanType

from rag_opt.console.screens import report_line
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Answers, Rankings, Searches

if TYPE_CHECKING:
    from rag_opt.components.llm.request import Request
    from rag_opt.evaluation.evaluate import Questions
    from rag_opt.evaluation.pipelines import Products, RagPipeline, Step
    from rag_opt.evaluation.wiring import Part
    from rag_opt.llm.client import Heard
    from rag_opt.llm.replies import Reply

PAGE = 500
"""Traces that are looked up at once: the most that MLflow gives."""

SHOWN = 10
"""Documents of a ranking that a span shows."""

LONGEST = 2_000
"""Characters of a document that a span shows."""


ENVIRONMENT = {
    # Samplers seed Python's random numbers, from which trace ids would be drawn otherwise: the same ones again.
    "MLFLOW_TRACE_USE_ISOLATED_RANDOM_ID_GENERATOR": "true",
    # By default an OTLP endpoint replaces MLflow's own keeping of traces.
    "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true",
}


PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True)
class Tracer:
    """Writes traces into one experiment of a tracking server or file."""

    client: MlflowClient
    experiment_id: str

    @classmethod
    def create(cls, client: MlflowClient, experiment_id: str) -> Tracer:
        """A tracer of this client's server; MLflow writes traces where its global address points, so that is set."""
        import mlflow

        for name, value in ENVIRONMENT.items():
            # What the user has set stays.
            os.environ.setdefault(name, value)
        prepare_export()
        mlflow.set_tracking_uri(client.tracking_uri)
        return cls(client, experiment_id)

    def write_traces(self, pipeline: RagPipeline, questions: Questions, tags: Mapping[str, str], run: str) -> int:
        """One trace a question, tagged with its id and linked to the run; gives how many there are.

        Questions that the run has a trace of are left out: a kill may have cut an earlier call short.
        """
        known = self._find_traced(run)
        missing = [query for query in questions.queries.items if query.id not in known]
        if missing:
            index = pipeline.index_documents(questions.documents)
            for query in missing:
                self._trace_question(pipeline, questions, index, query, tags, run)
        return questions.count

    def _find_traced(self, run: str) -> set[str]:
        """The ids of the questions that this run has a trace of."""
        found, token = set[str](), None
        while True:
            page = self.client.search_traces(
                locations=[self.experiment_id],
                run_id=run,
                max_results=PAGE,
                page_token=token,
                include_spans=False,
            )
            found |= {trace.info.tags.get("query_id", "") for trace in page}
            token = page.token
            if not token:
                return found

    def flush(self) -> None:
        """Wait until what was written can be read."""
        import mlflow

        # MLflow writes traces in the background: before this `get_trace` gives None.
        mlflow.flush_trace_async_logging()

    def _trace_question(
        self,
        pipeline: RagPipeline,
        questions: Questions,
        index: Products,
        query: Query,
        tags: Mapping[str, str],
        run: str,
    ) -> None:
        with pipeline.resources.llm.collect_replies() as heard:
            steps = pipeline.run_steps(Queries.from_items((query,)), questions.documents, index)
        moment = time.time_ns()
        root = self.client.start_trace(
            name="question",
            span_type=SpanType.CHAIN,
            inputs={"question": query.text},
            tags={**tags, "query_id": query.id},
            experiment_id=self.experiment_id,
            run_id=run,
            start_time_ns=moment,
        )
        for step in steps:
            moment = self._trace_step(root.trace_id, root.span_id, step, heard, moment)
        said = next((step.outputs["answers"].texts[0] for step in steps if "answers" in step.outputs), None)
        self.client.end_trace(
            root.trace_id, outputs={"answer": said, "references": list(query.answers)}, end_time_ns=moment
        )

    def _trace_step(self, trace: str, parent: str, step: Step, heard: Sequence[Heard], begin: int) -> int:
        """The span of a part, with the calls to models in it; gives its end in nanoseconds."""
        end = begin + max(1, int(1e9 * step.seconds))
        kind = _get_span_type(step.part)
        span = self.client.start_span(
            step.part.name, trace, parent, span_type=kind, inputs=_format_inputs(step.part), start_time_ns=begin
        )
        for stage, request, reply in heard:
            # Without seconds of its own all that it costs came with its inputs, calls to models included.
            if step.seconds and stage == STAGE_OF.get(kind):
                self._trace_call(trace, span.span_id, request, reply, begin)
        self.client.end_span(trace, span.span_id, outputs=_format_outputs(step), end_time_ns=end)
        return end

    def _trace_call(self, trace: str, parent: str, request: Request, reply: Reply, begin: int) -> None:
        said = [{"role": role, "content": text} for role, text in request.messages]
        span = self.client.start_span(
            request.model,
            trace,
            parent,
            span_type=SpanType.CHAT_MODEL,
            inputs={"messages": said},
            attributes={"mlflow.chat.tokenUsage": _count_tokens(reply), "mlflow.llm.model": request.model},
            start_time_ns=begin,
        )
        end = begin + max(1, int(1e9 * reply.seconds))
        self.client.end_span(trace, span.span_id, outputs={"content": reply.text}, end_time_ns=end)


def prepare_export() -> None:
    """See that traces are exported as the environment asks for; where they can't be, MLflow keeps them all the same.

    One exporter that can't be made would lose them altogether.
    """
    from mlflow.tracing.utils.otlp import get_otlp_exporter, should_use_otlp_exporter

    if not should_use_otlp_exporter():
        return
    if not any(name in os.environ for name in PROTOCOLS):
        # MLflow takes gRPC for the default, whether there is anything here that speaks it or not.
        os.environ[PROTOCOLS[0]] = "grpc" if find_spec("opentelemetry.exporter.otlp.proto.grpc") else "http/protobuf"
    try:
        # Made once to see that it can be, and closed: MLflow makes its own.
        get_otlp_exporter().shutdown()
    except Exception as error:
        # A protocol that is none, a package that is lacking, an address that can't be one.
        os.environ["MLFLOW_ENABLE_OTLP_EXPORTER"] = "false"
        report_line(f"traces are kept in MLflow, but not exported: {error}"[:300])


STAGE_OF = {SpanType.PARSER: "query", SpanType.RERANKER: "reranker", SpanType.LLM: "generator"}
"""Where the calls of each kind of part come from."""


def _count_tokens(reply: Reply) -> dict[str, int]:
    whole = reply.tokens_in + reply.tokens_out
    return {"input_tokens": reply.tokens_in, "output_tokens": reply.tokens_out, "total_tokens": whole}


def _get_span_type(part: Part) -> str:
    """The kind of a part, as MLflow shows it, by what it takes and gives."""
    given = set(part.component.__haystack_output__._sockets_dict)
    if "answers" in given:
        return str(SpanType.LLM)
    if any(name.endswith("_queries") for name in given):
        return str(SpanType.PARSER)
    if "query_vectors" in given:
        return str(SpanType.EMBEDDING)
    if "ranking" in given and "ranking" in part.inputs:
        return str(SpanType.RERANKER)
    return str(SpanType.RETRIEVER if any(name.endswith("ranking") for name in given) else SpanType.TOOL)


def _format_inputs(part: Part) -> dict[str, str]:
    return {socket: sender or "given" for socket, (sender, _) in part.inputs.items()}


def _format_outputs(step: Step) -> Any:
    shown = {socket: _format_value(value) for socket, value in step.outputs.items()}
    # What MLflow draws as documents is a list.
    return next(iter(shown.values())) if len(shown) == 1 else shown


def _format_value(value: Any) -> Any:
    if isinstance(value, Rankings):
        return list(_format_documents(value))
    if isinstance(value, Answers):
        return {"answer": value.texts[0]}
    if isinstance(value, Searches):
        return [variant.texts[0] for variant in value.variants]
    return type(value).__name__


def _format_documents(ranking: Rankings) -> Iterator[Found]:
    ids, texts = ranking.chunks.document_ids, ranking.chunks.texts
    for row, score in ranking.get_hits(0)[:SHOWN]:
        # MLflow's judges find no context in documents of Haystack's shape, only in a list of these.
        yield Found(page_content=texts[row][:LONGEST], metadata={"doc_uri": ids[row], "score": score}, id=str(row))
