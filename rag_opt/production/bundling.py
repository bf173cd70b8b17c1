"""A configuration and its documents → a bundle: what a store holds for them, copied, opened anew, compared."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rag_opt.cache.artifact_files import link_file
from rag_opt.components.models.speed import get_fast_precision
from rag_opt.config.trial import StageConfig, TrialConfig
from rag_opt.console.progress import track
from rag_opt.errors import ModelError
from rag_opt.production.answering import Answer, Answerer, open_bundle
from rag_opt.production.bundle import ARTIFACTS, Bundle, Lineage, Probe, Reference
from rag_opt.production.haystack_files import dump_pipelines
from rag_opt.production.requirements import CODE, copy_code
from rag_opt.text.tokenization import split_words

if TYPE_CHECKING:
    from rag_opt.cache.store import Store
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Dataset, Documents

ASKED, PAID = 100, 20
"""Questions that a bundle is asked to know what is to be expected of it; fewer where each has to be paid for."""

TIMED = 20
"""Of these so many are asked one by one, as people ask, and timed; the others together. No fewer than are PAID for."""

COMPARED = 5
"""Of these so many are asked again of the bundle as it is read back."""

PROBED = 100
TRACE = "tr-"
"""How the ids of MLflow's traces begin, and so those of the questions that come from there."""

OF_THE_MACHINE = ("paces",)
"""Artifacts that say what is fastest on this machine, which is pinned instead."""


def write_bundle(
    folder: Path,
    config: TrialConfig,
    documents: Documents,
    resources: Resources,
    lineage: Lineage,
    questions: Sequence[str] = (),
    probes: Sequence[Probe] = (),
    code: Path | None = None,
) -> Bundle:
    """The bundle of a configuration and its documents, written into a folder that is new or empty.

    What is there in the resources' store is copied, the rest made. It is asked the first of the `questions` to know
    what is to be expected of it. `code` is a folder with modules that are not found here. Raises ModelError where it
    does not answer as the configuration does.
    """
    pinned = pin_precision(config, resources.store)
    answerer = Answerer(pinned, documents, resources)
    asked = questions[: PAID if answerer.pays_to_search else ASKED]
    answers = _ask(answerer, asked)
    (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    _copy_artifacts(resources.store, folder / ARTIFACTS)
    found = {
        question: tuple(each.document_id for each in answer.cited)
        for question, answer in zip(asked, answers, strict=True)
    }
    kept = tuple(replace(probe, found=found.get(probe.question)) for probe in probes)
    bundle = Bundle(folder, pinned, lineage, build_reference(asked, answers), kept)
    # Before the bundle is written: its file says that all is there.
    copy_code(config.trusted, folder / CODE, code)
    bundle.write(documents)
    for name, text in dump_pipelines(answerer.pipeline).items():
        (folder / name).write_text(text, "utf-8")
    _compare(bundle, asked, answers)
    return bundle


def pin_precision(config: TrialConfig, store: Store) -> TrialConfig:
    """The configuration with the precision in which this machine encodes: on another one the vectors would differ."""

    def pin(node: Any) -> Any:
        if isinstance(node, list):
            return [pin(each) for each in node]
        if not isinstance(node, dict):
            return node
        known = {key: pin(value) for key, value in node.items()}
        return {**known, "precision": get_fast_precision(store)} if known.get("precision") == "auto" else known

    stages = {name: StageConfig(stage.choice, pin(dict(stage.values))) for name, stage in config.stages.items()}
    return replace(config, stages=MappingProxyType(stages))


def build_probes(dataset: Dataset) -> tuple[Probe, ...]:
    """The first questions of a data set that name their relevant documents, at most PROBED.

    None of those that people have asked: what they delete in MLflow must not live on in a model.
    """
    own = (query for query in dataset.queries if not query.id.startswith(TRACE))
    rows = ((query.text, dataset.qrels.get(query.id, {})) for query in own)
    known = [Probe(text, dict(grades)) for text, grades in rows if any(grade > 0 for grade in grades.values())]
    return tuple(known[:PROBED])


def build_reference(asked: Sequence[str], answers: Sequence[Answer]) -> Reference:
    """What these questions gave, question by question."""
    parts = dict.fromkeys(part for answer in answers for part in answer.seconds)
    return Reference(
        tuple(answer.sources[0].score if answer.sources else float("nan") for answer in answers),
        tuple(len(answer.sources) for answer in answers),
        tuple(len(split_words(question)) for question in asked),
        {part: tuple(answer.seconds.get(part, float("nan")) for answer in answers) for part in parts},
    )


def describe_versions() -> dict[str, str]:
    """The versions that a bundle was made with."""
    named = ("rag-opt-studies", "haystack-ai", "mlflow", "torch", "sentence-transformers", "bm25s")
    return {"python": platform.python_version(), **{name: version(name) for name in named}}


def get_moment() -> str:
    """Now, as bundles name it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ask(answerer: Answerer, asked: Sequence[str]) -> list[Answer]:
    found = []
    # One that warms up comes first: what is made by the first question is no part of what a question takes.
    answerer.search(asked[0] if asked else "ready")
    with track("asking the model what is to be expected of it", len(asked)) as advance:
        for question in asked[:TIMED]:
            found.append(answerer.search(question))
            advance(1)
        found += answerer.search_together(asked[TIMED:])
        advance(len(asked[TIMED:]))
    return found


def _copy_artifacts(store: Store, target: Path) -> None:
    root = store.root
    for path in sorted(store.used):
        # Only what lies in this store's own folder has a place in the bundle.
        if root is None or root not in path.parents or path.relative_to(root).parts[0] in OF_THE_MACHINE:
            continue
        place = target / path.relative_to(root)
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            copy = place / file.relative_to(path) if path.is_dir() else place
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_file(file, copy)


def _compare(bundle: Bundle, asked: Sequence[str], answers: Sequence[Answer]) -> None:
    """Raise ModelError unless the bundle, read back, finds what it is made of and the same for the first questions."""
    answerer = open_bundle(Bundle.read(bundle.folder))
    if made := sorted({*answerer.base.store.misses} - {*OF_THE_MACHINE}):
        # What is refused must not be found, and served, as a bundle.
        shutil.rmtree(bundle.folder, ignore_errors=True)
        raise ModelError(f"{bundle.folder}: the bundle lacks {', '.join(made)}: it would be made anew at each start")
    for question, known in zip(asked[:COMPARED], answers, strict=False):
        found = answerer.search(question)
        if [vars(source) for source in found.sources] != [vars(source) for source in known.sources]:
            shutil.rmtree(bundle.folder, ignore_errors=True)
            raise ModelError(f"{bundle.folder}: the bundle finds something else than the study for: {question}"[:300])
