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

BUNDLE, WRAPPER = "bundle", "pipeline_wrapper.py"
PROGRAM = Template('''\
"""$about Hayhooks serves it: hayhooks run --pipelines-dir $parent"""

from pathlib import Path

from hayhooks import BasePipelineWrapper, get_last_user_message

from rag_opt.production.answering import open_folder
from rag_opt.production.streaming import stream_answer


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        self.answerer = open_folder(Path(__file__).parent / "$bundle")
        self.pipeline = None

    def run_api(self, question: str) -> dict:
        """Answer a question from the documents of $study, and name the passages that were read."""
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
    """A folder below `folder` with a copy of the bundle and Hayhooks' wrapper; raises ModelError for one in use."""
    place = folder / bundle.lineage.study.replace("/", "-")
    if place.exists():
        raise ModelError(f"--hayhooks {folder}: there is a {place} already; name another folder, or remove it")
    shutil.copytree(bundle.folder, place / BUNDLE)
    about = f"What the study {bundle.lineage.study} recommends."
    text = PROGRAM.substitute(about=about, parent=folder.as_posix(), bundle=BUNDLE, study=bundle.lineage.study)
    (place / WRAPPER).write_text(text, "utf-8")
    return place
