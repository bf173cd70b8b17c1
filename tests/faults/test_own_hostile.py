"""Pipelines and functions that would run what nobody trusted: refused before anything of theirs has an effect.

Beside them broken ones: each ends before trial 0 in one message that names the file's part and says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.trial import compose_trial
from rag_opt.errors import RagOptError
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.pipelines import build_pipeline
from tests.conftest import own_space
from tests.faults.conftest import Figure

STORE = {"type": "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore", "init_parameters": {}}
BM25 = "haystack.components.retrievers.in_memory.bm25_retriever.InMemoryBM25Retriever"
WRITER = "haystack.components.writers.document_writer.DocumentWriter"
MOCK = "haystack.components.generators.chat.mock.MockChatGenerator"
AGENT = "haystack.components.agents.agent.Agent"
PROMPT = "haystack.components.builders.prompt_builder.PromptBuilder"
DOCUMENT = "haystack.dataclasses.document.Document"
RANKER = "haystack.components.rankers.lost_in_the_middle.LostInTheMiddleRanker"


def part(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"type": kind, "init_parameters": parameters}


def retriever(**parameters: Any) -> dict[str, Any]:
    return part(BM25, document_store=STORE, **parameters)


def qdrant(**parameters: Any) -> dict[str, Any]:
    store = part("haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore", **parameters)
    kind = "haystack_integrations.components.retrievers.qdrant.retriever.QdrantEmbeddingRetriever"
    embedder = part("haystack.components.embedders.mock_text_embedder.MockTextEmbedder", dimension=8)
    asked = part(kind, document_store={**store, "init_parameters": {**parameters, "embedding_dim": 8}})
    return pipeline(("e.embedding", "r.query_embedding"), e=embedder, r=asked)


def pipeline(*connections: tuple[str, str], **components: Any) -> dict[str, Any]:
    rows = [{"sender": sender, "receiver": receiver} for sender, receiver in connections]
    return {"components": components, "connections": rows}


INDEXING = pipeline(writer=part(WRITER, document_store=STORE))


def tool(function: str) -> dict[str, Any]:
    data = {"name": "t", "description": "t", "parameters": {"type": "object", "properties": {}}, "function": function}
    return {"type": "haystack.tools.tool.Tool", "data": data}


def agent(**parameters: Any) -> dict[str, Any]:
    return pipeline(agent=part(AGENT, chat_generator=part(MOCK), **parameters), retriever=retriever())


HOSTILE: dict[str, Any] = {
    "a command as a component": pipeline(a=part("os.system", command="touch {canary}")),
    "a process as a component": pipeline(a=part("subprocess.Popen", args=["touch", "{canary}"])),
    "a built-in function": pipeline(a=part("builtins.eval")),
    "a class of the standard library": pipeline(a=part("pathlib.Path")),
    "a module of nobody": pipeline(a=part("antigravity.Component")),
    "a pickle in a tag": "components: !!python/object/apply:os.system ['touch {canary}']\n",
    "an object in a tag": "components: {a: !!python/object/new:subprocess.Popen [['touch', '{canary}']]}\n",
    "a name in a tag": "components: {a: {type: !!python/name:os.system ''}}\n",
    "aliases of aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
    + "components: *h\n",
    "an alias of itself": "components: &a {a: *a}\n",
    "levels without end": "components: " + "[" * 500 + "]" * 500,
    "templates that run code": pipeline(
        a=part(
            "haystack.components.converters.output_adapter.OutputAdapter",
            template="{{ documents }}",
            output_type="str",
            unsafe=True,
        )
    ),
    "a router that runs code": pipeline(
        a=part("haystack.components.routers.conditional_router.ConditionalRouter", routes=[], unsafe=True)
    ),
    "filters that are code": pipeline(
        a=part(
            "haystack.components.converters.output_adapter.OutputAdapter",
            template="{{ query | f }}",
            output_type="str",
            custom_filters={"f": "os.system"},
        )
    ),
    "a template that climbs": pipeline(
        p=part(PROMPT, template="{{ ''.__class__.__mro__[1].__subclasses__() }} {{ query }}"), r=retriever()
    ),
    "a response that is a function": pipeline(a=part(MOCK, response_fn="os.system"), r=retriever()),
    "a response that is exec": pipeline(a=part(MOCK, response_fn="builtins.exec"), r=retriever()),
    "a tool that is a command": agent(tools=[tool("os.system")]),
    "a tool of Haystack's own loader": agent(
        tools=[tool("haystack.core.serialization_security.allow_deserialization_module")]
    ),
    "a tool that imports": agent(tools=[tool("haystack.utils.type_serialization.thread_safe_import")]),
    "a tool that fetches": agent(
        tools=[
            {
                "type": "haystack.tools.component_tool.ComponentTool",
                "data": {
                    "component": part("haystack.components.fetchers.link_content.LinkContentFetcher"),
                    "name": "f",
                },
            }
        ]
    ),
    "a tool that starts programs": agent(
        tools=[{"type": "haystack_integrations.tools.mcp.MCPTool", "data": {"command": "touch {canary}"}}]
    ),
    "hooks that are commands": agent(hooks={"before_llm": [{"type": "os.system", "data": {}}]}),
    "a fetcher": pipeline(a=part("haystack.components.fetchers.link_content.LinkContentFetcher"), r=retriever()),
    "a splitter that is a command": pipeline(
        a=part(
            "haystack.components.preprocessors.document_splitter.DocumentSplitter",
            split_by="function",
            splitting_function="os.system",
        ),
        r=retriever(),
    ),
    "a store that is a process": pipeline(
        r=part(BM25, document_store={"type": "subprocess.Popen", "init_parameters": {"args": "touch {canary}"}})
    ),
    "a class smuggled into a parameter": pipeline(
        r=retriever(extra={"type": "subprocess.Popen", "init_parameters": {"args": "touch {canary}"}})
    ),
    "code beside a model": pipeline(
        a=part(
            "haystack_integrations.components.embedders.sentence_transformers.sentence_transformers_text_embedder"
            ".SentenceTransformersTextEmbedder",
            model="x/y",
            trust_remote_code=True,
        ),
        r=retriever(),
    ),
    "a module behind another": pipeline(
        a=part("haystack.components.retrievers.in_memory.bm25_retriever.logging.os.system")
    ),
    "a key in the file": pipeline(
        a=part(
            "haystack.components.generators.chat.openai.OpenAIChatGenerator",
            api_key="sk-" + "abcdefghijklmnop1234567890",
        ),
        r=retriever(),
    ),
}
HOSTILE |= {
    "a password in an address": qdrant(url="http://admin:hunter2secret@localhost"),
    "a password beside a user": qdrant(client_kwargs={"http_auth": ["admin", "hunter2secret"]}),
}
FACTORIES = {
    "a factory of nobody": "pipeline.factory=os.system",
    "a factory that a trusted module imports": "pipeline.factory=tests.services.brought.time.sleep",
    "a private factory": "pipeline.factory=tests.services.brought._build",
    "a factory that is a built-in": "pipeline.factory=builtins.exec",
    "a function that is eval": "pipeline.function=builtins.eval",
}


def fill(node: Any, canary: Path) -> Any:
    if isinstance(node, str):
        return node.replace("{canary}", str(canary))
    if isinstance(node, dict):
        return {key: fill(value, canary) for key, value in node.items()}
    return [fill(each, canary) for each in node] if isinstance(node, list) else node


def refuse(words: list[str], animals: list[str], store: Store) -> str:
    """Why a pipeline is refused when it is built and asked its first question, as before trial 0."""
    from rag_opt.config.compose import compose_config
    from rag_opt.evaluation.evaluator import load_dataset

    dataset = load_dataset(compose_config(animals))
    asked = Questions.from_dataset(dataset, 1, 0)

    def ask() -> None:
        built = build_pipeline(compose_trial(words), Resources.from_store(store))
        index = built.index_documents(asked.documents)
        built.ask(asked.queries.make_batch(asked.batches[0][:1]), asked.documents, index)

    with pytest.raises(RagOptError) as error:
        ask()
    return str(error.value)


def write(folder: Path, querying: Any, indexing: Any = INDEXING) -> list[str]:
    words = ["pipeline=own"]
    for name, each in (("querying", querying), ("indexing", indexing)):
        if each is not None:
            path = folder / f"{name}.yaml"
            path.write_text(each if isinstance(each, str) else yaml.safe_dump(each), "utf-8")
            words.append(f"pipeline.{name}={path}")
    return words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_without_a_side_effect(name: str, animals, store, tmp_path) -> None:
    canary = tmp_path / "canary"
    said = refuse(write(tmp_path, fill(HOSTILE[name], canary)), animals, store)
    assert not canary.exists()
    assert "sk-abc" not in said
    assert "hunter2" not in said
    assert said.count("\n") <= 4
    assert len(said) < 1200


@pytest.mark.parametrize("name", FACTORIES)
def test_a_hostile_factory_is_refused_without_being_called(name: str, animals, store) -> None:
    kind = "function" if "function" in FACTORIES[name] else "own"
    said = refuse([f"pipeline={kind}", "trusted_modules=[tests]", FACTORIES[name]], animals, store)
    assert FACTORIES[name].partition("=")[2].rpartition(".")[2] in said


def test_how_many_were_refused(figure: Figure) -> None:
    count = len(HOSTILE) + len(FACTORIES)
    assert count >= 30
    figure("pipelines of one's own", f"{count} of {count} refused without an effect, {len(BROKEN)} broken ones said")


# ---- broken ones

BROKEN: dict[str, tuple[Any, Any, list[str], str]] = {
    "a file that is not there": (None, None, ["pipeline.querying=/nowhere/query.yaml"], "there is no such file"),
    "a file that is no pipeline": ("- a\n", INDEXING, [], "no pipeline: `components` are expected"),
    "a file that is no YAML": ("a: [", INDEXING, [], "can't be read as a pipeline"),
    "a component without a type": ({"components": {"a": {}}}, INDEXING, [], "component 'a' has no `type`"),
    "a class that is not there": (pipeline(a=part("haystack.components.rankers.Nothing")), INDEXING, [], "Nothing"),
    "a package that is not installed": (
        pipeline(a=part("haystack_integrations.components.rankers.nobody.Ranker")),
        INDEXING,
        [],
        "querying.a",
    ),
    "a parameter that is unknown": (pipeline(r=retriever(topk=3)), INDEXING, [], "did you mean 'top_k'"),
    "a parameter of another kind": (pipeline(r=retriever(top_k=-3)), INDEXING, [], "component 'r'"),
    "a key of no component": (pipeline(r=retriever()), INDEXING, ["querying.x.top_k=3"], "there is no component 'x'"),
    "a key of no parameter": (pipeline(r=retriever()), INDEXING, ["querying.r.topp=3"], "did you mean 'top_k'"),
    "a socket that is not there": (
        pipeline(("r.documents", "k.nothing"), r=retriever(), k=part(RANKER)),
        INDEXING,
        [],
        "nothing",
    ),
    "types that do not fit": (
        pipeline(("r.documents", "p.template"), r=retriever(), p=part(PROMPT, template="{{ query }}")),
        INDEXING,
        [],
        "querying",
    ),
    "a socket that nothing feeds": (pipeline(k=part(RANKER)), INDEXING, [], "nothing feeds k.documents"),
    "two that could be the documents": (
        pipeline(r=retriever(), s=retriever()),
        INDEXING,
        [],
        "pipeline.outputs.documents=",
    ),
    "an output that is not there": (
        pipeline(r=retriever()),
        INDEXING,
        ["pipeline.outputs.documents=r.docs"],
        "did you mean 'documents'",
    ),
    "an input that is not there": (
        pipeline(r=retriever()),
        INDEXING,
        ["pipeline.inputs.r.qury=question"],
        "did you mean 'query'",
    ),
    "nothing that writes": (pipeline(r=retriever()), pipeline(k=part(RANKER)), [], "no component has a document store"),
    "nothing that takes documents": (pipeline(r=retriever()), pipeline(r=retriever()), [], "nothing takes documents"),
    "no store that is filled": (qdrant(location=":memory:"), None, [], "is empty"),
    "an integration that is not installed": (
        pipeline(r=part("haystack_integrations.components.retrievers.weaviate.bm25_retriever.WeaviateBM25Retriever")),
        INDEXING,
        [],
        "its package is probably weaviate-haystack",
    ),
    "a store that is not installed": (
        pipeline(r=part(BM25, document_store=part("haystack_integrations.document_stores.no_such.store.NoSuchStore"))),
        None,
        [],
        "its package is probably no-such-haystack",
    ),
    "a store that can't be reached": (
        qdrant(host="127.0.0.1", port=9),
        None,
        [],
        "can't be reached",
    ),
    "a cycle without an end": (
        pipeline(
            ("r.documents", "join.value"),
            ("join.value", "again.documents"),
            ("again.documents", "join.value"),
            join=part("haystack.components.joiners.branch.BranchJoiner", type_=f"list[{DOCUMENT}]"),
            again=part(RANKER),
            r=retriever(),
        )
        | {"max_runs_per_component": 5},
        INDEXING,
        ["pipeline.outputs.documents=again.documents"],
        "PipelineMaxComponentRuns",
    ),
    "a name with a dot": ({"components": {"a.b": part(RANKER)}}, INDEXING, [], "rename it"),
    "no pipeline at all": (None, INDEXING, [], "pipeline.querying=query.yaml"),
    "dimensions that differ": (
        pipeline(
            ("e.embedding", "r.query_embedding"),
            e=part("haystack.components.embedders.mock_text_embedder.MockTextEmbedder", dimension=8),
            r=part(
                "haystack.components.retrievers.in_memory.embedding_retriever.InMemoryEmbeddingRetriever",
                document_store=STORE,
            ),
        ),
        pipeline(
            ("e.documents", "w.documents"),
            e=part("haystack.components.embedders.mock_document_embedder.MockDocumentEmbedder", dimension=16),
            w=part(WRITER, document_store=STORE),
        ),
        [],
        "every question failed",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pipeline_is_said_before_the_first_trial(name: str, animals, store, tmp_path) -> None:
    querying, indexing, more, message = BROKEN[name]
    said = refuse([*write(tmp_path, querying, indexing), *more], animals, store)
    assert message in said
    assert said.count("\n") <= 4
    assert len(said) < 1200


def test_a_component_of_the_same_name_twice_is_said(animals, store, tmp_path) -> None:
    text = yaml.safe_dump(pipeline(r=retriever()))
    first = text[text.index("  r:") : text.index("connections:")]
    said = refuse(write(tmp_path, text.replace("connections:", f"{first}connections:")), animals, store)
    assert "'r' stands twice" in said
    assert "line " in said


def test_a_study_says_it_in_one_message_and_leaves_nothing(animals, tmp_path, said: Callable[[], list[str]]) -> None:
    from rag_opt.cli.study import run_study

    words = write(tmp_path, qdrant(location=":memory:"), None)
    kept = [word for word in animals if not word.startswith(("splitter", "embedder", "retriever", "search_space"))]
    folders = [f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"]
    space = own_space(tmp_path, {"querying.r.top_k": "range(1, 6)"})
    with pytest.raises(RagOptError, match=r"before trial 0 this can't be used:\n  pipeline=own: .* is empty"):
        run_study([*kept, *words, *folders, *space])
