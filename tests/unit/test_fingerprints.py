"""What stands for classes and configurations in keys."""

from __future__ import annotations

import sys
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from haystack import component

from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.splitters.chunkers import SentenceSplitter as Sentences
from rag_opt.config import compose, trial
from rag_opt.config.fingerprints import replace_targets
from rag_opt.metrics.custom import build_own_metric
from rag_opt.metrics.own import hash_function
from rag_opt.records.documents import Documents
from rag_opt.records.keys import get_algorithm
from rag_opt.records.products import Chunks


@component
class SentenceSplitter(Sentences):
    """A splitter of one's own, by chance called like one of ours."""

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {"chunks": self._build_chunks(documents, lambda _, text: [(0, len(text) // 2)])}


class Evaluator:
    """Counts what it is given."""

    def run(self, questions: list[str]) -> dict[str, Any]:
        return {"individual_scores": [float(len(question)) for question in questions]}


def module_with(monkeypatch: pytest.MonkeyPatch, name: str, **kinds: Any) -> None:
    """A module of this name, with these in it, as if they had been written there."""
    module = ModuleType(name)
    for each, kind in kinds.items():
        kind.__module__ = name
        setattr(module, each, kind)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_class_goes_by_its_own_algorithm_else_by_its_dotted_name() -> None:
    assert get_algorithm(Sentences) == Sentences.algorithm
    assert get_algorithm(SentenceSplitter) == f"{__name__}.SentenceSplitter"
    assert get_algorithm(Path, "written") == "written"
    assert get_algorithm(len) == "builtins.len"


def test_a_subclass_shares_no_key_with_what_it_derives_from() -> None:
    """Whatever it is called: it computes something else."""
    assert SentenceSplitter(20, 5).fingerprint != Sentences(20, 5).fingerprint
    assert type("Hashing", (Hashing,), {})().fingerprint != Hashing().fingerprint
    assert type("Hashing", (Hashing,), {"algorithm": Hashing.algorithm})().fingerprint == Hashing().fingerprint


def test_a_configuration_tells_what_is_computed_however_deep_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"mine": [{"_target_": f"{Hashing.__module__}.Hashing", "dimensions": 8}], "top_k": 3}
    kind = type("Buckets", (Hashing,), {"algorithm": Hashing.algorithm})
    module_with(monkeypatch, "elsewhere", Buckets=kind)
    there = {"mine": [{"_target_": "elsewhere.Buckets", "dimensions": 8}], "top_k": 3}
    assert replace_targets(there, ["elsewhere"]) == replace_targets(here)
    assert replace_targets(here)["mine"][0] == {"_target_": Hashing.algorithm, "dimensions": 8}


def test_what_is_not_trusted_is_not_imported_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untold.py").write_text("raise SystemExit('imported')", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in ("untold.Mine", "rag_opt.nowhere.Nothing", "haystack.nowhere", 7):
        assert replace_targets({"_target_": target}) == {"_target_": target}
    trial.compute_fingerprint(compose.compose_config(["+splitter.unused={_target_: untold.Mine}"]))
    assert "untold" not in sys.modules


def test_an_evaluator_that_moves_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [component(type("Counting", (Evaluator,), {"run": Evaluator.run, **own})) for own in ({}, {})]
    for kind in kinds:
        kind.algorithm = "characters of a question"
    module_with(monkeypatch, "first", Counting=kinds[0])
    module_with(monkeypatch, "second", Counting=kinds[1])
    trusted = ["first", "second"]
    versions = [
        build_own_metric("length", {"evaluator": {"_target_": f"{module}.Counting"}}, trusted, {}).version
        for module in trusted
    ]
    assert versions[0] == versions[1]
    del kinds[1].algorithm
    assert (
        build_own_metric("length", {"evaluator": {"_target_": "second.Counting"}}, trusted, {}).version != versions[0]
    )


def test_what_has_no_source_has_the_same_version_in_every_process() -> None:
    """Its repr holds its address."""

    def made() -> Any:
        scope: dict[str, Any] = {"__name__": "compiled"}
        exec("def score(case): return 1.0", scope)
        return scope["score"]

    one, other = made(), made()
    assert hash_function(one) == hash_function(other)
    weighing = make_dataclass("Weighing", ["weight"], namespace={"__call__": lambda self, case: self.weight})
    assert hash_function(weighing(1.0)) == hash_function(weighing(1.0)) != hash_function(weighing(2.0))
