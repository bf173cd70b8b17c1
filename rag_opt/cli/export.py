"""`python -m rag_opt.export studies/<name> [key=value ...]`: what a study recommends as plain Haystack pipelines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.system import environment

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rag_opt.evaluation.pipelines import RagPipeline

SCRIPT = "ask.py"
# It splits at newlines alone: splitlines() would also cut rows at U+2028, which JSON leaves in texts.
PROGRAM = Template('''\
"""Ask the pipelines beside this file: python ask.py 'What is …?' (their components are rag_opt's)."""

import json, sys
from pathlib import Path

from rag_opt.records.products import Searches
from rag_opt.records.documents import Document, Documents, Queries, Query
from rag_opt.console.terminal import sanitize_line, sanitize_text
from haystack import Pipeline


def run(name, given):
    text = (Path(__file__).parent / f"{name}.yaml").read_text("utf-8")
    pipeline = Pipeline.loads(text, allowed_modules=$modules)
    inputs = {part: {s: given[s] for s in open_ if s in given} for part, open_ in pipeline.inputs().items()}
    return pipeline.run(inputs, include_outputs_from=set(pipeline.graph.nodes))


lines = (Path(__file__).parent / "documents.jsonl").read_text("utf-8").split("\\n")
documents = Documents(tuple(Document.from_dict(json.loads(line)) for line in lines if line), key="documents.jsonl")
queries = Queries.from_items((Query("question", sys.argv[1].strip()),))
given = {"documents": documents, "queries": queries, **dict.fromkeys($searches, Searches((queries,)))}
index = run("indexing", given)
found = run("querying", given | {name: value for made in index.values() for name, value in made.items()})
$answer
context = found["$part"]["ranking"]
for row, score in context.get_hits(0)[:5]:
    text = " ".join(context.chunks.texts[row].split())[:90]
    print(sanitize_line(f"  {context.chunks.format_place(row)} ({score:.3f}): {text}"))
''')
"""The program that loads and asks; what it prints is what rag_opt.ask prints."""

ANSWER = Template("""\
said = found["$part"]["answers"].texts[0]
print("no answer: the call to the model failed" if said is None else sanitize_text(said))\
""")


def export_pipelines(folder: Path, overrides: Sequence[str] = (), target: Path | None = None) -> Path:
    """The folder, `target` or <folder>/export, with indexing.yaml, querying.yaml, documents.jsonl and ask.py written.

    `overrides` come on top of what the study recommends. Passwords are not written. Raises a RagOptError where the
    study recommends nothing, or its configuration can't be built.
    """
    from rag_opt.cache.store import Store
    from rag_opt.cli.own_export import write_texts
    from rag_opt.components.resources import Resources
    from rag_opt.config.compose import compose_config
    from rag_opt.config.experiments import expand_best
    from rag_opt.config.quoting import quote_arguments
    from rag_opt.config.stages import is_whole
    from rag_opt.config.trial import build_trial_config
    from rag_opt.config.trust import to_plain
    from rag_opt.datasets.checks import get_corpus
    from rag_opt.evaluation.evaluator import load_dataset
    from rag_opt.evaluation.pipelines import build_pipeline

    words = expand_best(quote_arguments([f"best={folder.as_posix()}", *overrides]))
    config, place = compose_config(words), target or folder / "export"
    # A store in memory: nothing is kept of a pipeline that is written down and not run.
    pipeline = build_pipeline(build_trial_config(config, words), Resources.from_store(Store()))
    own = is_whole(config)
    made = write_texts(pipeline, to_plain(config.trusted_modules)) if own else _write_stages(pipeline, config)
    documents = pipeline.parse_documents(get_corpus(load_dataset(config))).items
    rows = (json.dumps(asdict(document), ensure_ascii=False) for document in documents)
    texts = {**made, "documents.jsonl": "".join(f"{row}\n" for row in rows)}
    place.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (place / name).write_text(text, "utf-8")
    return place


# A context, where one is assembled, is an output of another name than a ranking.
def _write_stages(pipeline: RagPipeline, config: DictConfig) -> dict[str, str]:
    """By file a pipeline that is made of stages, and the program that asks it."""
    from rag_opt.config.trust import to_plain
    from rag_opt.console.secrets import hide_secrets
    from rag_opt.evaluation.wiring import SEARCHES

    trusted = [f"{module}.*" for module in ("rag_opt", *to_plain(config.trusted_modules))]
    answers, context = pipeline.results.get("answers"), pipeline.results.get("context")
    program = PROGRAM.substitute(
        modules=repr(trusted),
        searches=repr(SEARCHES),
        answer=ANSWER.substitute(part=answers) if answers else "",
        part=context or pipeline.results["ranking"],
    )
    program = program.replace('["ranking"]', '["context"]') if context else program
    return {
        "indexing.yaml": hide_secrets(pipeline.indexing.dumps()),
        "querying.yaml": hide_secrets(pipeline.querying.dumps()),
        SCRIPT: program,
    }


@command_line("export", __doc__)
def main(
    study: Annotated[Path, Argument(help="a finished study's folder")],
    overrides: Annotated[
        list[str] | None, Argument(help="key=value: what is to differ from what the study recommends")
    ] = None,
    to: Annotated[Path | None, Option(help="the folder to write; <study>/export where it is not given")] = None,
) -> None:
    """The command line."""
    with environment.disable_gc():
        place = export_pipelines(study, overrides or (), to)
    kept = f"python -m rag_opt.ask best={study.as_posix()} question='your question'"
    print(sanitize_line(f"{SCRIPT} indexes all documents each time it starts; this keeps the index: {kept}"))
    print(sanitize_line(f"ask it: python {place / SCRIPT} 'your question'"))
