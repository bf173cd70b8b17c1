"""The store: what was made once is found again; nothing half-written is ever used."""

from __future__ import annotations

import numpy as np
import pytest

from rag_opt.components.encoders import Hashing, embedded
from rag_opt.errors import StoreError
from rag_opt.store import Store, read_table

COLUMNS = {
    "rows": np.arange(6, dtype=np.int32).reshape(3, 2),
    "score": np.array([0.5, 1.5, -2.0]),
    "text": ["a", "ü", ""],
}


def never() -> dict:
    raise AssertionError("made again")


def test_a_table_is_made_once_and_read_back_equal(tmp_path) -> None:
    made = Store(tmp_path).table("stage", "key", lambda: COLUMNS)
    again = Store(tmp_path)
    found = again.table("stage", "key", never)
    assert (found.columns["rows"] == COLUMNS["rows"]).all()
    assert found.columns["rows"].dtype == np.int32
    assert found.columns["score"].tolist() == [0.5, 1.5, -2.0]
    assert found.columns["text"] == ["a", "ü", ""]
    assert found.seconds == made.seconds > 0
    assert (again.hits["stage"], again.misses["stage"]) == (1, 0)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"junk" * 50])
def test_a_damaged_table_is_made_again(tmp_path, damage) -> None:
    Store(tmp_path).table("stage", "key", lambda: COLUMNS)
    path = tmp_path / "stage" / "key.arrow"
    path.write_bytes(damage(path.read_bytes()))
    made = Store(tmp_path).table("stage", "key", lambda: {"new": [1, 2]})
    assert made.columns["new"] == [1, 2]
    assert read_table(path).columns["new"].tolist() == [1, 2]


def test_a_failed_making_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.table("stage", "key", lambda: {"x": [1 // 0]})
    with pytest.raises(ZeroDivisionError):
        store.folder("index", "key", lambda path: [(path / "half").write_text("x"), 1 // 0])
    assert not [path for path in store.root.rglob("*") if path.is_file()]
    assert not (store.root / "index" / "key").exists()


def test_an_unwritable_store_is_said(tmp_path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(StoreError, match="can't write"):
        Store(tmp_path / "store").table("stage", "key", lambda: COLUMNS)


def test_a_store_without_a_folder_lives_in_memory() -> None:
    store = Store()
    store.table("stage", "key", lambda: COLUMNS)
    assert store.table("stage", "key", never).columns["text"] == ["a", "ü", ""]
    folder = store.folder("index", "key", lambda path: (path / "f").write_text("x"))
    assert (store.folder("index", "key", never) / "f").read_text() == "x"
    assert folder.is_dir()


def test_a_text_is_embedded_once_per_encoder_whatever_the_chunking(tmp_path, monkeypatch) -> None:
    seen: list[str] = []
    encode = Hashing.encode
    monkeypatch.setattr(Hashing, "encode", lambda self, texts: [seen.extend(texts), encode(self, texts)][1])
    store = Store(tmp_path)
    first = embedded(Hashing(64), ["a b", "c", "a b"], store).values
    assert sorted(seen) == ["a b", "c"]
    embedded(Hashing(64), ["c", "d"], store)
    again = embedded(Hashing(64), ["a b", "c", "a b"], Store(tmp_path)).values
    assert sorted(seen) == ["a b", "c", "d"]
    assert (again == first).all()
    embedded(Hashing(32), ["c"], store)
    assert len(seen) == 4
