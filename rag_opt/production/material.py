"""What a served model is tuned again with: the questions of its own study, and those asked since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.analysis.finished import open_finished
from rag_opt.config.compose import compose_config
from rag_opt.datasets.checks import get_corpus
from rag_opt.datasets.files import read_json_lines
from rag_opt.datasets.jsonl import read_questions
from rag_opt.errors import DatasetError, ModelError, RagOptError
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.metrics.catalogue import get_metric
from rag_opt.production.asked import read_again, read_asked
from rag_opt.production.bundle import Bundle
from rag_opt.production.bundling import TRACE
from rag_opt.production.registry import CHAMPION, Registry
from rag_opt.production.rounds import Round, find_rounds
from rag_opt.questions.check import build_row
from rag_opt.records.documents import Query

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from rag_opt.analysis.findings import Findings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Champion:
    """What is to be tuned again: a registered version, its bundle, what the study that it comes from has measured.

    `studies` is where that study lies, `url` its storage.
    """

    registry: Registry
    model: ModelVersion
    bundle: Bundle
    studies: Path
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
    def command(self) -> str:
        """The command with which its study goes on."""
        return self.findings.commands["continue"]

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


def open_champion(registry: Registry, name: str, studies: Path, storage: str | None = None) -> Champion:
    """The champion of a registered model with the study that it comes from; raises a RagOptError without either."""
    model = registry.find(f"models:/{name}@{CHAMPION}")
    bundle = Bundle.read(registry.fetch(model))
    folder = studies / bundle.lineage.study
    try:
        findings, _ = open_finished(folder, storage)
    except RagOptError as error:
        raise ModelError(
            f"models:/{name}@{CHAMPION} comes from study '{bundle.lineage.study}', whose search is to go on: {error}; "
            "--studies names the folder that has it"
        ) from error
    database = folder / "study.db"
    # That file is the study, wherever it was copied to; the findings' address may lead to where it was.
    url = f"sqlite:///{database.resolve().as_posix()}" if database.is_file() else (storage or findings.url)
    return Champion(registry, model, bundle, studies, findings, url)


def collect_material(champion: Champion, now: Round, given: Path | None = None) -> Material:
    """The questions for a round: those that were used before, and those of which people said since what is right.

    `given` is a file of fresh questions beside. Questions of traces are those that MLflow has now.
    """
    known = {each.id for each in champion.bundle.read_documents().items}
    asked, left = read_asked(champion.registry, champion.name, now.since, now.until, known)
    old, used = _read_old(champion, now, known, left)
    rows: list[Row] = [build_row(query, dict.fromkeys(names, 1)) for query, names in asked if query.id not in used]
    beside = [] if given is None else _read_given(given, known)
    rows += [row for row in beside if row["id"] not in used]
    left["have been used before"] += sum(row["id"] in used for row in beside)
    fresh = [row for row in rows if _is_told(row, champion.metric)]
    left["have no gold that the objective measures with"] += len(rows) - len(fresh)
    return Material(tuple(old), tuple(fresh), {reason: number for reason, number in left.items() if number})


def _read_given(path: Path, known: set[str]) -> list[Row]:
    """The questions of a file, under names that no others have; the documents that are relevant have to be there."""
    queries, judgements, _ = read_questions(path, "")
    grades: dict[str, dict[str, int]] = {query.id: {} for query in queries}
    for each in judgements:
        if each.document_id not in known:
            raise DatasetError(
                f"{path}: question {each.query_id} names document {each.document_id}, which is not there"
            )
        grades[each.query_id][each.document_id] = each.grade
    return [build_row(replace(query, id=f"{path.stem}:{query.id}"), grades[query.id]) for query in queries]


def _read_old(champion: Champion, now: Round, known: set[str], left: Counter[str]) -> tuple[list[Row], set[str]]:
    """(questions of the champion's own study, else of its bundle, and of earlier rounds; the ids of all of them)."""
    sources: list[tuple[Sequence[Row], bool]] = [_read_own(champion)]
    corpus = champion.bundle.lineage.corpus
    for before in find_rounds(champion.studies, champion.name):
        if before.folder != now.folder:
            kept = [row for _, row in read_json_lines(before.questions) if row.get("accept") is not False]
            sources.append((kept, before.corpus == corpus))
    there: dict[str, tuple[Row, bool]] = {}
    for rows, same in sources:
        for row in rows:
            # Of two rows the first counts: the champion's own before those of rounds.
            there.setdefault(str(row["id"]), (row, same))
    traced = [name for name in there if name.startswith(TRACE)]
    # A trace's question is never taken from a file: people may have deleted or masked it since.
    told = {
        query.id: build_row(query, dict.fromkeys(names, 1))
        for query, names in read_again(champion.registry, traced, known)
    }
    left["were deleted, masked or taken back since they were asked"] += len(traced) - len(told)
    found = [told.get(name) if name.startswith(TRACE) else _fit(*there[name], known) for name in there]
    there_now = [row for row in found if row is not None]
    old = [row for row in there_now if _is_told(row, champion.metric)]
    left["are about documents that are gone or have changed"] += len(there_now) - len(old)
    # Those that are left out, too: what was used once is never fresh again.
    return old, {*there}


def _read_own(champion: Champion) -> tuple[Sequence[Row], bool]:
    """(questions that the champion was tuned with, whether they are about its very documents)."""
    try:
        dataset = load_dataset(compose_config(champion.words))
    except RagOptError:
        # Its files may be gone, or may be about documents that have changed since.
        given = [(Query(f"p{n}", each.question), each.relevant) for n, each in enumerate(champion.bundle.probes, 1)]
        return [build_row(query, grades) for query, grades in given], False
    rows = [build_row(query, dataset.qrels[query.id]) for query in dataset.queries]
    return rows, get_corpus(dataset).key == champion.bundle.lineage.corpus


def _fit(row: Row, same: bool, known: set[str]) -> Row:
    """A question with the gold that is among the documents; evidence is of texts, so of other ones it says nothing."""
    grades = {name: grade for name, grade in row.get("relevant", {}).items() if name in known}
    return {**row, "relevant": grades} if same else {**row, "relevant": grades, "evidence": []}


def _is_told(row: Row, metric: str) -> bool:
    """Whether an objective can be measured with what is known of a question."""
    needs = get_metric(metric).needs
    if needs == "qrels":
        return any(grade > 0 for grade in row.get("relevant", {}).values())
    return needs not in ("answers", "evidence") or bool(row.get(needs))
