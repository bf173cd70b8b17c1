"""A pipeline of one's own as a study recommends it: plain Haystack YAML, and a program that needs Haystack alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from rag_opt.config.own_pipelines import Definition
    from rag_opt.evaluation.pipelines import RagPipeline

# It splits at newlines alone: splitlines() would also cut rows at U+2028, which JSON leaves in texts.
PROGRAM = Template('''\
"""Ask the pipelines beside this file, by Haystack alone: python ask.py 'What is …?'"""

import json, sys
from pathlib import Path

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, ChatMessage

HERE = Path(__file__).parent
INDEXING, FILES, INPUTS = $indexing, $files, $inputs
DOCUMENTS, ANSWER = $documents, $answer


def load(name):
    return Pipeline.loads((HERE / f"{name}.yaml").read_text("utf-8"), allowed_modules=$modules)


def make(row):
    meta = {"document_id": row["id"], **({"title": row["title"]} if row.get("title") else {})}
    if FILES:
        return ByteStream(row["text"].encode(), {**meta, "file_path": f"{row['id']}.txt"}, "text/plain")
    return Document(id=row["id"], content=row["text"], meta=meta)


def read(found, place):
    owner, _, socket = place.partition(".")
    return found.get(owner, {}).get(socket)


def say(answer):
    if isinstance(answer, list) and answer:
        answer = answer[-1] if isinstance(answer[-1], ChatMessage) else answer[0]
    return getattr(answer, "text", None) or getattr(answer, "data", None) or answer


if INDEXING:
    owner, _, socket = INDEXING.partition(".")
    rows = [json.loads(line) for line in (HERE / "documents.jsonl").read_text("utf-8").split("\\n") if line]
    indexing = load("indexing")
    parts = [part for _, part in indexing.graph.nodes(data="instance")]
    stores = [part.document_store for part in parts if hasattr(part, "document_store")]
    # A store that holds documents already is asked as it is.
    if not any(store.count_documents() for store in stores):
        indexing.run({owner: {socket: [make(row) for row in rows]}})
querying, given = load("querying"), {}
for place, text in INPUTS.items():
    owner, _, socket = place.partition(".")
    kind, value = str(querying.inputs()[owner][socket]["type"]), text.replace("{question}", sys.argv[1])
    value = ChatMessage.from_user(value) if "ChatMessage" in kind else value
    given.setdefault(owner, {})[socket] = [value] if "list[" in kind else value
found = querying.run(given, include_outputs_from={place.partition(".")[0] for place in (DOCUMENTS, ANSWER) if place})
if ANSWER:
    print(say(read(found, ANSWER)))
ranking = read(found, DOCUMENTS) or [] if DOCUMENTS else []
if DOCUMENTS and not ranking:
    print("  no document was found")
for document in ranking[:5]:
    score = f"{document.score:.3f}" if document.score is not None else "-"
    text = " ".join((document.content or "").split())[:90]
    print(f"  {document.meta.get('document_id', document.id)} ({score}): {text}")
''')
"""The program that loads and asks; it names nothing of rag_opt."""


def write_texts(pipeline: RagPipeline, trusted: list[str]) -> dict[str, str]:
    """By file what is exported of a pipeline of one's own; raises ConfigError for a function, or a service."""
    from rag_opt.components.external.indexing import OwnIndexing
    from rag_opt.components.external.querying import OwnPipeline

    parts = [part.component for part in pipeline.parts]
    querying = next((each for each in parts if isinstance(each, OwnPipeline)), None)
    if querying is None:
        given = getattr(parts[-1], "parameters", {})
        raise ConfigError(
            "there is no pipeline to export: what answers is your own code; call it with "
            f"{json.dumps(given, default=str)}"
        )
    indexing = next((each for each in parts if isinstance(each, OwnIndexing) and each.plain is not None), None)
    documents, answer = querying.gives
    program = PROGRAM.substitute(
        # Haystack loads classes of these modules only, and takes patterns.
        modules=repr([f"{module}.*" for module in trusted]),
        indexing=repr(indexing.takes[0] if indexing else None),
        files=repr(indexing.takes[1] if indexing else False),
        inputs=repr(querying.feeds),
        documents=repr(documents),
        answer=repr(answer),
    )
    plain = _share_memory(indexing.plain, querying.plain) if indexing else querying.plain
    texts = {"querying.yaml": _dump(plain), "ask.py": program}
    return {**({"indexing.yaml": _dump(indexing.plain)} if indexing else {}), **texts}


def _share_memory(indexing: Mapping[str, Any] | None, querying: Definition) -> Definition:
    """The querying pipeline, its store in memory called as the indexing one's.

    A store that is given no name has a new one in each file, and then the one asked is not the one that was filled.
    """
    from rag_opt.components.document_stores import MEMORY, find_stores, name_stores
    from rag_opt.config.own_pipelines import INIT, TYPE

    stores = [*find_stores(indexing), *find_stores(querying)]
    names = [(node.get(INIT) or {}).get("index") for node in stores]
    if not stores or names[0] is None or any(node[TYPE] != MEMORY for node in stores):
        return querying
    shared: Definition = name_stores(querying, names[0])
    return shared


def _dump(definition: Mapping[str, Any] | None) -> str:
    return hide_secrets(yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
