"""A bundle: a folder with all that answers questions as a study's configuration did, on any machine, without a network.

    bundle.json        the configuration, where it comes from, what is to be expected of it
    documents.arrow    the corpus
    indexing.yaml, querying.yaml    both pipelines, as Haystack writes them
    artifacts/         of the study's store what the index is made of: chunks, vectors, word counts, distilled models
    code/              modules of one's own that were trusted, where there are any

It is written once and only read from then on, by any number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rag_opt.cache.artifact_files import DamagedError, read_table, write_table
from rag_opt.config.trial import StageConfig, TrialConfig
from rag_opt.errors import ModelError
from rag_opt.records.documents import Document, Documents, Mark, SourceFile

FILE, DOCUMENTS, ARTIFACTS = "bundle.json", "documents.arrow", "artifacts"
BUNDLE = "bundle"
"""The name of the artifact of an MLflow model that holds one."""

FORM = 1
"""The form of bundles that this version writes and reads."""


@dataclass(frozen=True)
class Lineage:
    """Where a bundle comes from, and what was confirmed of it.

    `fingerprint` and `baseline` stand for what the bundle's pipeline and the study's baseline compute, `corpus` for the
    documents; `difference` is the recommended configuration's mean less the baseline's on questions that had no part in
    choosing it, with its interval `low` to `high` (nan: there is none), `case` the rule by which it is recommended.
    """

    study: str
    trial: int
    made: str
    fingerprint: str
    corpus: str
    dataset: str = ""
    commit: str = ""
    baseline: str = ""
    metric: str = ""
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    case: str = ""
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What the study's own questions gave, a value a question: what a watch compares the present with.

    `scores` are those of the first hit (nan: no hit), `hits` how many chunks were read, `words` those of the question,
    `seconds` by part of the pipeline what a question took (nan: it was asked together with others).
    """

    scores: tuple[float, ...] = ()
    hits: tuple[int, ...] = ()
    words: tuple[int, ...] = ()
    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """A question with the documents that are relevant to it, by grade: a version must not lose them.

    `found` are the documents that were read for it, the best first; None where it was not asked.
    """

    question: str
    relevant: Mapping[str, int]
    found: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """What lies in a bundle's folder; of its documents and artifacts what is asked for is read then."""

    folder: Path
    config: TrialConfig
    lineage: Lineage
    reference: Reference
    probes: tuple[Probe, ...]

    @property
    def artifacts(self) -> Path:
        return self.folder / ARTIFACTS

    def read_documents(self) -> Documents:
        """The corpus; raises ModelError where it can't be read."""
        path = self.folder / DOCUMENTS
        try:
            table = read_table(path)
            # As it was, since the artifacts stand under keys that were made with it.
            key = json.loads((self.folder / FILE).read_text("utf-8"))["documents"]
        except (DamagedError, OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path}: it is not what was written; promote the study again") from error
        columns = (table.columns[name] for name in ("id", "text", "title", "marks", "path", "digest"))
        return Documents(tuple(_build_document(*row) for row in zip(*columns, strict=True)), key)

    def write(self, documents: Documents) -> None:
        """Leave what is known in the folder, which has the artifacts already; the file that names all comes last."""
        columns = {
            "id": [each.id for each in documents.items],
            "text": [each.text for each in documents.items],
            "title": [each.title for each in documents.items],
            "marks": [json.dumps([list(vars(mark).values()) for mark in each.marks]) for each in documents.items],
            # Files alone have these two.
            "path": [getattr(each, "path", "") for each in documents.items],
            "digest": [getattr(each, "digest", "") for each in documents.items],
        }
        # 0.0: a table names the seconds that it took to make, and documents were given.
        write_table(self.folder / DOCUMENTS, columns, 0.0)
        stages = {name: asdict(stage) for name, stage in self.config.stages.items()}
        node = {
            "form": FORM,
            "configuration": {"words": self.config.words, "stages": stages, "trusted": self.config.trusted},
            "documents": documents.key,
            "lineage": asdict(self.lineage),
            "reference": asdict(self.reference),
            "probes": [asdict(probe) for probe in self.probes],
        }
        # nan is written as NaN, which is no JSON to others, but Python reads it.
        (self.folder / FILE).write_text(json.dumps(node, ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """The bundle of a folder; raises ModelError where there is none, or one that this version can't read."""
        path = folder / FILE
        try:
            node = json.loads(path.read_text("utf-8"))
            if node["form"] != FORM:
                raise ModelError(f"{path}: its form is {node['form']}, and this version reads {FORM}: promote it again")
            reference = node["reference"]
            seconds = {name: tuple(values) for name, values in reference["seconds"].items()}
            lists = {name: tuple(reference[name]) for name in ("scores", "hits", "words")}
            return cls(
                folder,
                _build_config(node["configuration"]),
                Lineage(**node["lineage"]),
                Reference(**lists, seconds=seconds),
                tuple(map(_build_probe, node["probes"])),
            )
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder}: there is no {FILE} in it; python -m rag_opt.promote <a study's folder> makes one"
            ) from error
        # The file may come from anyone.
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path}: can't be read ({error}); promote the study again") from error


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle."""
    return (folder / FILE).is_file()


def _build_probe(node: Mapping[str, Any]) -> Probe:
    return Probe(node["question"], node["relevant"], None if node.get("found") is None else tuple(node["found"]))


def _build_config(node: Mapping[str, Any]) -> TrialConfig:
    stages = {name: StageConfig(stage["choice"], stage["values"]) for name, stage in node["stages"].items()}
    return TrialConfig(tuple(node["words"]), MappingProxyType(stages), tuple(node["trusted"]))


def _build_document(name: str, text: str, title: str, marks: str, path: str, digest: str) -> Document:
    parts: Sequence[Any] = json.loads(marks)
    # A digest tells a file that no parser has read; only its bytes are known.
    if digest:
        return SourceFile(name, text, title, path=path, digest=digest)
    return Document(name, text, title, tuple(Mark(*each) for each in parts))
