"""A bundle's pipelines as Haystack's YAML, and the folder from which Hayhooks serves a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ModelError

if TYPE_CHECKING:
    from rag_opt.evaluation.pipelines import RagPipeline
    from rag_opt.production.bundle import Bundle

PIPELINES, BUNDLES, WRAPPER = "pipelines", "bundles", "pipeline_wrapper.py"
PROGRAM = Template('''\
"""What the study $study recommends. Hayhooks serves it: hayhooks run --pipelines-dir $pipelines"""

import os
from pathlib import Path

from hayhooks import BasePipelineWrapper, get_last_user_message

from rag_opt.production.answering import open_folder
from rag_opt.production.streaming import stream_answer

# Hayhooks runs a copy of this file, made elsewhere.
BUNDLE = Path(os.environ.get("RAG_OPT_BUNDLE", $bundle))


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        self.answerer = open_folder(BUNDLE, code=True)
        self.pipeline = None

    def run_api(self, question: str) -> dict:
        """Answer a question from the documents, and name the passages that were read."""
        answer = self.answerer.ask(question)
        return {"answer": answer.text, "documents": [source.to_dict() for source in answer.sources]}

    def run_chat_completion(self, model: str, messages: list[dict], body: dict):
        question = get_last_user_message(messages)
        if not body.get("stream"):
            return self.answerer.ask(question).text
        return (piece for piece in stream_answer(self.answerer, question) if isinstance(piece, str))
''')


def dump_pipelines(pipeline: RagPipeline) -> dict[str, str]:
    """By file name both pipelines as Haystack's YAML; passwords in them are hidden."""
    return {
        "indexing.yaml": hide_secrets(pipeline.indexing.dumps()),
        "querying.yaml": hide_secrets(pipeline.querying.dumps()),
    }


def write_wrapper(bundle: Bundle, folder: Path) -> Path:
    """The folder of pipelines for Hayhooks, below `folder`, with a wrapper of the bundle, of which a copy lies beside.

    Raises ModelError where there is one of this name already.
    """
    # A multirun's studies have a slash in their names.
    name = bundle.lineage.study.replace("/", "-")
    pipelines, kept = folder / PIPELINES, folder / BUNDLES / name
    if (pipelines / name).exists() or kept.exists():
        raise ModelError(f"--hayhooks {folder}: there is a {name} in it already; name another folder, or remove it")
    shutil.copytree(bundle.folder, kept)
    (pipelines / name).mkdir(parents=True)
    told = {"study": name, "pipelines": pipelines.as_posix(), "bundle": repr(str(kept.resolve()))}
    (pipelines / name / WRAPPER).write_text(PROGRAM.substitute(told), "utf-8")
    return pipelines
