"""What configurations took, kept in the store."""

from __future__ import annotations

import json
import os

import pytest

from rag_opt.cache.artifact_files import write_table
from rag_opt.cache.eviction import evict_artifacts, list_artifacts
from rag_opt.cache.store import Store
from rag_opt.study import timings


def test_what_was_noted_is_told_to_those_of_the_same_key(tmp_path) -> None:
    store = Store(tmp_path / "store")
    assert timings.read_timings(store, "a") == []
    timings.record_timings(store, "a", {"splitter": "word", "splitter.size": 100, "b": None}, {"indexing": 2.5})
    timings.record_timings(store, "a", {"splitter.size": 100, "b": None, "splitter": "word"}, {"indexing": 0.1})
    timings.record_timings(store, "b", {"splitter": "page"}, {"indexing": 1.0})
    assert timings.read_timings(store, "a") == [
        ({"splitter": "word", "splitter.size": 100, "b": None}, {"indexing": 2.5})
    ]
    assert timings.read_timings(Store(), "a") == []
    timings.record_timings(Store(), "a", {}, {})


def test_of_many_those_used_last_are_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "MOST", 3)
    store = Store(tmp_path)
    for size in range(6):
        timings.record_timings(store, "a", {"size": size}, {"indexing": 1.0})
    timings.record_timings(store, "a", {"size": 0}, {"indexing": 1.0})
    assert [params["size"] for params, _ in timings.read_timings(store, "a")] == [0, 5, 4]


def test_notes_are_evicted_like_all_that_is_stored(tmp_path) -> None:
    store = Store(tmp_path)
    timings.record_timings(store, "a", {"size": 1}, {"indexing": 1.0})
    assert [artifact.stage for artifact in list_artifacts(tmp_path)] == [timings.STAGE]
    for artifact in list_artifacts(tmp_path):
        os.utime(artifact.path, (1, 1))
    assert len(evict_artifacts(tmp_path, 0)) == 1
    assert timings.read_timings(store, "a") == []


@pytest.mark.parametrize("params", ["[1]", '{"a": [1]}', "{", '"a"', "null"])
def test_what_is_no_note_is_left_out(tmp_path, params: str) -> None:
    store = Store(tmp_path)
    timings.record_timings(store, "a", {"size": 1}, {"indexing": 1.0})
    write_table(tmp_path / "timings/a/odd.arrow", {"params": [params], "seconds": [json.dumps({"x": 1.0})]}, 0.0)
    write_table(tmp_path / "timings/a/other.arrow", {"params": ["{}"], "seconds": ['{"x": "long"}']}, 0.0)
    (tmp_path / "timings/a/broken.arrow").write_bytes(b"nothing")
    assert timings.read_timings(store, "a") == [({"size": 1}, {"indexing": 1.0})]


def test_a_note_that_can_not_be_written_loses_no_trial(tmp_path) -> None:
    (tmp_path / "timings").write_text("a file where a folder should be")
    timings.record_timings(Store(tmp_path), "a", {"size": 1}, {"indexing": 1.0})
