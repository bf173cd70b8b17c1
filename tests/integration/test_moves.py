"""What was computed and begun is found again: after a move of the classes, after a release, in a study of the past."""

from __future__ import annotations

import importlib
import inspect
import sys
import tarfile
from pathlib import Path

import optuna
import pytest
import yaml

import rag_opt
from rag_opt.cache.eviction import read_usage
from rag_opt.cli.study import run_study
from rag_opt.config.compose import FOLDER
from rag_opt.config.trust import import_target, iterate_targets
from tests.conftest import animals_study, own_space

PAST = Path(__file__).with_name("study_of_0_1_0.tar.gz")
"""A study of four trials with its store and data, made by this program of November 2026 (69d9973) with the words below.

Without its report, locks and what is written anew at the end.
"""

WORDS = [
    *("dataset=jsonl", "dataset.documents=documents.jsonl", "dataset.questions=questions.jsonl", "embedder=hashing"),
    *("splitter=sentence", "splitter.chunk_size=20", "splitter.overlap=5"),
    *("retriever.depth=10", "reranker=mmr", "context=assembled", "context.window=1", "tracking=none", "pruner=none"),
    "store.path=studies/.store",
    # What was not done then would make something that the store lacks.
    *("confirmation.ablation=false", "confirmation.method=split"),
]

SPACE = {
    "retriever": "choice(bm25, dense, hybrid)",
    "retriever.top_k": "range(3, 21)",
    "retriever.k1": {"values": "interval(0.4, 3.0)", "when": {"retriever": ["bm25", "hybrid"]}},
    "retriever.b": {"values": "interval(0.0, 1.0)", "when": {"retriever": ["bm25", "hybrid"]}},
    "retriever.fusion": {"values": "choice(weighted, rrf)", "when": {"retriever": "hybrid"}},
    "retriever.hybrid_weight": {
        "values": "interval(0.0, 1.0)",
        "when": {"retriever": "hybrid", "retriever.fusion": "weighted"},
    },
    "retriever.scaling": {
        "values": "choice(minmax, zscore)",
        "when": {"retriever": "hybrid", "retriever.fusion": "weighted"},
    },
}
"""What `search_space=retrieval` was then."""

CHOICES = {
    "splitter": "sentence",
    "embedder": "hashing",
    "index": "exact",
    "retriever": "bm25",
    "reranker": "mmr",
    "context": "assembled",
    "generator": "extractive",
}
"""The files whose classes move."""


def trials_of(folder: Path, name: str) -> list[tuple[object, ...]]:
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/{name}/study.db")
    return [(trial.params, trial.values, trial.datetime_complete) for trial in study.trials]


def misses(store: Path) -> dict[str, int]:
    """What had to be made, by stage, in all studies so far."""
    return {stage: looked["misses"] for stage, looked in read_usage(store).items()}


def moved(folder: Path) -> None:
    """A package that has a copy of each module which the files of `CHOICES` name."""
    (folder / "moved").mkdir()
    nodes = [yaml.safe_load((FOLDER / stage / f"{choice}.yaml").read_text()) for stage, choice in CHOICES.items()]
    for module in {import_target(target).__module__ for target in iterate_targets(nodes)}:
        source = inspect.getsource(importlib.import_module(module))
        (folder / "moved" / f"{module.rpartition('.')[2]}.py").write_text(source, "utf-8")


def own_choices(folder: Path, *, move: bool) -> str:
    """A configuration folder with a choice `mine` of each stage, and what puts it on the search path."""
    for stage, choice in CHOICES.items():
        node = (FOLDER / stage / f"{choice}.yaml").read_text("utf-8")
        for target in set(iterate_targets(yaml.safe_load(node))) if move else ():
            kind = import_target(target)
            node = node.replace(target, f"moved.{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}")
        (folder / stage).mkdir(parents=True)
        (folder / stage / "mine.yaml").write_text(node, "utf-8")
    return f"hydra.searchpath=[file://{folder}]"


def test_a_move_and_a_release_make_nothing_anew_and_stop_no_study(
    animals: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven stages move to another module with their files and the version is raised: all is found, the study goes on."""
    mine = [word for word in animals if not word.startswith("splitter=") and word != "embedder=hashing"]
    mine += [*(f"{stage}=mine" for stage in CHOICES), "splitter.chunk_size=12", "splitter.overlap=3"]
    here, there = own_choices(tmp_path / "here", move=False), own_choices(tmp_path / "there", move=True)
    animals_study(mine, tmp_path, here, "name=begun", "n_trials=3")
    before, known = trials_of(tmp_path / "studies", "begun"), misses(tmp_path / "store")

    moved(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(rag_opt, "__version__", "7.0.0")
    after = [*mine, there, "trusted_modules=[moved]"]
    animals_study(after, tmp_path, "name=again", "n_trials=3")
    assert misses(tmp_path / "store") == known != {}
    assert {"moved.chunkers", "moved.hashing"} <= {*sys.modules}
    assert [(params, values) for params, values, _ in trials_of(tmp_path / "studies", "again")] == [
        (params, values) for params, values, _ in before
    ]
    animals_study(after, tmp_path, "name=begun", "n_trials=5")
    found = trials_of(tmp_path / "studies", "begun")
    assert (len(found), found[:3]) == (5, before)


def test_a_study_of_the_past_goes_on_with_what_it_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(PAST) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    before, known = trials_of(tmp_path / "studies", "before"), misses(tmp_path / "studies" / ".store")
    assert len(before) == 4
    words = [*WORDS, *own_space(tmp_path, SPACE)]
    run_study([*words, "name=again", "n_trials=4"])
    assert misses(tmp_path / "studies" / ".store") == known
    run_study([*words, "name=before", "n_trials=6"])
    found = trials_of(tmp_path / "studies", "before")
    assert (len(found), found[:4]) == (6, before)
    assert all(values is not None for _, values, _ in found)
