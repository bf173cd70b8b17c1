"""A model over changed documents: a new version, made of what the old one has and of what is new in them.

Everything in a bundle stands under the key of how it was made, so the new one is that of a fresh build: what did not
change finds its vectors, the rest is made anew. Only a vector's last bits may differ, which depend on what a text is
encoded with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis.paired import compute_p_value
from rag_opt.cache.artifact_files import SUFFIX, link_file, read_table
from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.stages import PARSER
from rag_opt.datasets.checks import build_corpus
from rag_opt.datasets.folder import list_files
from rag_opt.datasets.jsonl import read_documents
from rag_opt.errors import ModelError
from rag_opt.production.bundle import BUNDLE, Bundle, Probe
from rag_opt.production.bundling import describe_versions, get_moment, write_bundle
from rag_opt.production.registry import CHAMPION, Registry, check_name, register_prompts
from rag_opt.production.requirements import CODE, explain_lacking
from rag_opt.records.documents import Document, Documents
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DOUBT = 0.05
"""The p below which probes that are answered worse are no noise."""

# Of five probes that all got worse the exact p is 2/32, above DOUBT; of six it is 2/64.
FEW, FALL = 6, 0.2
"""Probes of fewer than so many show nothing by a test: then a mean that falls so far counts."""

DEPTH = 10
"""How deep probes are measured: nDCG@10."""


@dataclass(frozen=True)
class Difference:
    """What changed among documents, by id: those that are new, have another content, or are gone."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True)
class ProbeCheck:
    """nDCG@10 of the probes before and after, a value a probe, and the p of a difference this far from 0.

    Left out are those whose relevant documents are all gone (`gone` of them): nothing can find them.
    """

    probes: tuple[Probe, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    p: float
    gone: int

    @property
    def is_worse(self) -> bool:
        """Whether the probes are answered worse than noise explains; few can't show that, so a great fall will do."""
        count = len(self.probes)
        fall = (sum(self.before) - sum(self.after)) / count if count else 0.0
        return fall > 0 and (self.p < DOUBT or (count < FEW and fall >= FALL))

    @property
    def is_elsewhere(self) -> bool:
        """Whether most probes ask for documents that are gone: these may well be other documents altogether."""
        return self.gone > len(self.probes)

    @property
    def lost(self) -> list[tuple[str, float, float]]:
        """(question, before, after) of those that are answered worse, the worst first."""
        rows = zip((probe.question for probe in self.probes), self.before, self.after, strict=True)
        return sorted((row for row in rows if row[2] < row[1]), key=lambda row: row[2] - row[1])


@dataclass(frozen=True)
class Update:
    """What an update did: `model` is None where nothing changed; `encoded` of `texts` were not in the old version."""

    difference: Difference
    model: ModelVersion | None
    check: ProbeCheck | None
    encoded: int = 0
    texts: int = 0


class WorseError(ModelError):
    """A version over changed documents that answers its probes worse; `check` has them."""

    def __init__(self, message: str, check: ProbeCheck) -> None:
        super().__init__(message)
        self.check = check


def update_model(registry: Registry, address: str, source: Path, because: str = "") -> Update:
    """A new version of a registered model over the documents of a folder or a JSON Lines file; its alias moves to it.

    Raises WorseError, and leaves the alias where it is, where the new version answers the model's probes worse beyond
    noise, unless `because` says why it is put up all the same.
    """
    alias = check_name(address)
    found = registry.find(address)
    bundle = Bundle.read(registry.fetch(found))
    known, documents = bundle.read_documents(), load_documents(bundle, source)
    difference = compare_documents(known, documents)
    if difference.is_empty:
        return Update(difference, None, None)
    with TemporaryDirectory(prefix="rag_opt-update-") as place:
        made, encoded, texts = build_update(bundle, documents, Path(place), because)
        check = check_probes(bundle, made, documents)
        if (check.is_worse or check.is_elsewhere) and not because:
            raise WorseError(_explain_worse(address, check), check)
        model = registry.log(made, found.name, register_prompts(registry.client, made))
    # Somebody may have promoted, updated or rolled back meanwhile.
    now = registry.find(address)
    if str(now.version) != str(found.version):
        raise ModelError(
            f"{address} means version {now.version} now, and version {model.version} was made of {found.version}: "
            "the alias stays; run the same command again"
        )
    registry.set_alias(model, alias or CHAMPION)
    return Update(difference, model, check, encoded, texts)


def load_documents(bundle: Bundle, source: Path) -> Documents:
    """The documents of a folder or a JSON Lines file; raises a RagOptError where they are not of the model's kind."""
    files = PARSER in bundle.config.stages
    if files != source.is_dir():
        wanted = "a folder of files" if files else "a JSON Lines file with a document a line"
        raise ModelError(f"{source}: {wanted} is expected, as the model was made of")
    items: Sequence[Document] = (
        list_files(source).files if files else build_corpus(source.stem, read_documents(source, Counter()), [])
    )
    # As `get_corpus` makes it: the same documents have the same key.
    return Documents(tuple(items), compute_key("documents", [each.content for each in items]))


def compare_documents(known: Documents, now: Documents) -> Difference:
    """What changed, by id and content."""
    before = {each.id: each.content for each in known.items}
    after = {each.id: each.content for each in now.items}
    return Difference(
        tuple(name for name in after if name not in before),
        tuple(name for name, content in after.items() if name in before and before[name] != content),
        tuple(name for name in before if name not in after),
    )


def build_update(bundle: Bundle, documents: Documents, place: Path, because: str = "") -> tuple[Bundle, int, int]:
    """(bundle over these documents, texts that were encoded for it, texts of its index), below an empty folder."""
    # A store of its own: `write_bundle` then takes over only what these documents still use.
    store = Store(place / "store")
    for path in sorted(each for each in bundle.artifacts.rglob("*") if each.is_file()):
        copy = place / "store" / path.relative_to(bundle.artifacts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        link_file(path, copy)
    before = _count_vectors(place / "store")
    lineage = replace(
        bundle.lineage,
        made=get_moment(),
        corpus=documents.key,
        reason=because or bundle.lineage.reason,
        versions=describe_versions(),
    )
    questions = [probe.question for probe in bundle.probes]
    code, resources = bundle.folder / CODE, Resources.from_store(store)
    with explain_lacking(code):
        made = write_bundle(
            place / BUNDLE, bundle.config, documents, resources, lineage, questions, bundle.probes, code
        )
    names = _count_vectors(made.artifacts)
    return made, len(names - before), len(names)


def check_probes(bundle: Bundle, made: Bundle, now: Documents) -> ProbeCheck:
    """The model's probes, by what was found for them when either bundle was made."""
    there = {each.id for each in now.items}
    # Documents that are gone are wanted by nobody: what is left of a probe is measured.
    asked = [
        Probe(probe.question, {name: grade for name, grade in probe.relevant.items() if name in there})
        for probe in bundle.probes
    ]
    wanted = [any(grade > 0 for grade in probe.relevant.values()) for probe in asked]
    rows = [
        (probe, old.found, new.found)
        for probe, old, new, left in zip(asked, bundle.probes, made.probes, wanted, strict=True)
        # What was not asked when either was made can't be compared.
        if left and old.found is not None and new.found is not None
    ]
    before = tuple(_measure(probe.relevant, found) for probe, found, _ in rows)
    after = tuple(_measure(probe.relevant, found) for probe, _, found in rows)
    p = compute_p_value(np.array(after) - np.array(before), seed=0) if rows else 1.0
    return ProbeCheck(tuple(probe for probe, _, _ in rows), before, after, p, wanted.count(False))


def _measure(relevant: Mapping[str, int], ranking: Sequence[str]) -> float:
    """nDCG@10 (Järvelin and Kekäläinen 2002), the gain a document's grade."""
    gains = [relevant.get(name, 0) for name in ranking[:DEPTH]]
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    ideal = sum(gain / math.log2(place + 2) for place, gain in enumerate(best))
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains)) / ideal if ideal else 0.0


def _count_vectors(folder: Path) -> set[str]:
    """The names of the texts that a store's vectors are of, each encoder by itself."""
    found = set[str]()
    for path in (folder / "vectors").glob(f"*/*{SUFFIX}"):
        found |= {f"{path.parent.name}/{name}" for name in read_table(path).columns["name"]}
    return found


def _explain_worse(address: str, check: ProbeCheck) -> str:
    if check.is_elsewhere:
        return (
            f"{address} stays: {check.gone} of its {check.gone + len(check.probes)} probes ask for documents that are "
            "not among these: are they the right ones? --because '…' puts them up all the same"
        )
    count, before, after = len(check.probes), np.mean(check.before), np.mean(check.after)
    worst = "; ".join(f"{question} ({was:.2f} → {now:.2f})" for question, was, now in check.lost[:3])
    return (
        f"{address} stays: over these documents nDCG@10 of its {count} probes falls from {before:.3f} to {after:.3f} "
        f"(p = {check.p:.3f}): {worst}. --because '…' puts it up all the same"
    )
