"""What a served model is tuned again with: the questions of its own study, and those asked since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.analysis.finished import open_finished
from rag_opt.config.compose import compose_config
from rag_opt.datasets.files import read_json_lines
from rag_opt.datasets.jsonl import read_questions
from rag_opt.errors import DatasetError, ModelError, RagOptError
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.metrics.catalogue import get_metric
from rag_opt.production.asked import find_present, read_asked
from rag_opt.production.bundle import Bundle
from rag_opt.production.bundling import TRACE
from rag_opt.production.registry import CHAMPION, Registry, explain_failures
from rag_opt.questions.check import build_row
from rag_opt.records.documents import Query

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from rag_opt.analysis.findings import Findings

QUESTIONS, STATE = "retune/questions.jsonl", "retune/state.json"
"""Where a study that tunes a model again has its questions, and what it was begun with."""

RETUNED = "rag_opt.retuned"
"""The registered model's tag with the moment, in ms, up to which questions were used."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Champion:
    """What is to be tuned again: a registered version, its bundle, the study that it comes from, what that measured."""

    registry: Registry
    model: ModelVersion
    bundle: Bundle
    study: Path
    findings: Findings
    url: str

    @property
    def name(self) -> str:
        return str(self.model.name)

    @property
    def words(self) -> list[str]:
        """The overrides of its configuration."""
        return list(self.bundle.config.words)

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.findings.targets[0]


@dataclass(frozen=True)
class Material:
    """The questions of a study: old ones and what was asked since, and why how many were left out."""

    old: tuple[Row, ...]
    fresh: tuple[Row, ...]
    left: Mapping[str, int]


def open_champion(registry: Registry, name: str, study: Path | None = None, storage: str | None = None) -> Champion:
    """The champion of a registered model with the study that it comes from; raises a RagOptError without either."""
    model = registry.find(f"models:/{name}@{CHAMPION}")
    bundle = Bundle.read(registry.fetch(model))
    folder = study or Path("studies") / bundle.lineage.study
    try:
        findings, _ = open_finished(folder, storage)
    except RagOptError as error:
        raise ModelError(
            f"models:/{name}@{CHAMPION} comes from study '{bundle.lineage.study}', whose search is to go on: {error}; "
            "name its folder with --study"
        ) from error
    database = folder / "study.db"
    url = f"sqlite:///{database.resolve().as_posix()}" if database.is_file() else (storage or findings.url)
    return Champion(registry, model, bundle, folder, findings, url)


def find_seen(registry: Registry, name: str) -> int:
    """The moment, in ms, up to which what people said has been used; 0 before the first time."""
    with explain_failures(registry.uri, name):
        return int(registry.client.get_registered_model(name).tags.get(RETUNED, 0))


def mark_seen(registry: Registry, name: str, until: int) -> None:
    """What people said up to this moment, in ms, has decided: it is searched from now on, and fresh no more."""
    with explain_failures(registry.uri, name):
        registry.client.set_registered_model_tag(name, RETUNED, str(until))


def collect_material(champion: Champion, study: str, until: int, given: Path | None = None) -> Material:
    """The questions for a study: those that were used before, and those of which people said since what is right.

    For a `study` of this name, which may have been begun; `given` is a file of fresh questions beside. What is no
    longer in MLflow as it was is in none of them.
    """
    known = {each.id for each in champion.bundle.read_documents().items}
    since = find_seen(champion.registry, champion.name)
    asked, left = read_asked(champion.registry, champion.name, since, until, known)
    old = _read_old(champion, study, known)
    used = {row["id"] for row in old}
    rows: list[Row] = [build_row(query, dict.fromkeys(names, 1)) for query, names in asked if query.id not in used]
    rows += [] if given is None else [row for row in _read_given(given, known) if row["id"] not in used]
    fresh = [row for row in rows if _is_told(row, champion.metric)]
    left["have no gold that the objective measures with"] += len(rows) - len(fresh)
    traced = {row["id"]: str(row["question"]) for row in old if str(row["id"]).startswith(TRACE)}
    present = find_present(champion.registry, traced)
    kept = [row for row in old if row["id"] not in traced or row["id"] in present]
    left["were deleted or masked since they were asked"] += len(old) - len(kept)
    return Material(tuple(kept), tuple(fresh), {reason: count for reason, count in left.items() if count})


def _read_given(path: Path, known: set[str]) -> list[Row]:
    """The questions of a file, of which the documents that are relevant have to be there."""
    queries, judgements, _ = read_questions(path, f"{path.stem}:")
    grades: dict[str, dict[str, int]] = {query.id: {} for query in queries}
    for each in judgements:
        if each.document_id not in known:
            raise DatasetError(
                f"{path}: question {each.query_id} names document {each.document_id}, which is not there"
            )
        grades[each.query_id][each.document_id] = each.grade
    return [build_row(query, grades[query.id]) for query in queries]


def _read_old(champion: Champion, study: str, known: set[str]) -> list[Row]:
    """The questions that the champion was tuned with, else those that its bundle has, and those of retunings since."""
    try:
        dataset = load_dataset(compose_config(champion.words))
    except RagOptError:
        # Its files may be gone, or may be about documents that have changed since.
        given = [(Query(f"p{n}", each.question), each.relevant) for n, each in enumerate(champion.bundle.probes, 1)]
    else:
        given = [(query, dataset.qrels[query.id]) for query in dataset.queries]
    rows = [build_row(query, grades) for query, grades in given]
    for begun in sorted(champion.study.parent.glob(f"{champion.name}-retune-*/{STATE}")):
        folder = begun.parents[1]
        path = folder / QUESTIONS
        if folder.name == study:
            continue
        rows += [row for _, row in read_json_lines(path) if row.get("accept") is not False]
    there: dict[str, Row] = {}
    for row in rows:
        grades = {name: grade for name, grade in row.get("relevant", {}).items() if name in known}
        if _is_told(told := {**row, "relevant": grades}, champion.metric):
            there.setdefault(str(row["id"]), told)
    return list(there.values())


def _is_told(row: Row, metric: str) -> bool:
    """Whether an objective can be measured with what is known of a question."""
    needs = get_metric(metric).needs
    if needs == "qrels":
        return any(grade > 0 for grade in row.get("relevant", {}).values())
    return needs not in ("answers", "evidence") or bool(row.get(needs))
