"""The store: what was made once is found again; nothing half-written is ever used."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.cache.artifact_files import read_table
from rag_opt.cache.eviction import evict_artifacts, list_artifacts, read_usage
from rag_opt.cache.leases import Claims, Lease, find_oldest_lease
from rag_opt.cache.store import Store
from rag_opt.cli.store import main
from rag_opt.components.embedders.embedding_cache import EmbeddingCache, embed_texts, get_embeddings
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.errors import StoreError

COLUMNS = {
    "rows": np.arange(6, dtype=np.int32).reshape(3, 2),
    "score": np.array([0.5, 1.5, -2.0]),
    "text": ["a", "ü", ""],
}


def never() -> dict:
    raise AssertionError("made again")


def test_a_table_is_made_once_and_read_back_equal(tmp_path) -> None:
    made = Store(tmp_path).get_table("stage", "key", lambda: COLUMNS)
    again = Store(tmp_path)
    found = again.get_table("stage", "key", never)
    assert (found.columns["rows"] == COLUMNS["rows"]).all()
    assert found.columns["rows"].dtype == np.int32
    assert found.columns["score"].tolist() == [0.5, 1.5, -2.0]
    assert found.columns["text"] == ["a", "ü", ""]
    assert found.seconds == made.seconds > 0
    assert (again.hits["stage"], again.misses["stage"]) == (1, 0)


def flipped(content: bytes, place: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "half": lambda b: b[: len(b) // 2],
    "nothing": lambda _: b"",
    "something else": lambda _: b"junk" * 50,
    "one byte less": lambda b: b[:-1],
    "one byte more": lambda b: b + b"x",
    "a zeroed page": lambda b: bytes(64) + b[64:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_table_is_made_again_and_that_is_said(tmp_path, damage, said) -> None:
    Store(tmp_path).get_table("stage", "key", lambda: COLUMNS)
    path = tmp_path / "stage" / "key.arrow"
    path.write_bytes(damage(path.read_bytes()))
    store = Store(tmp_path)
    made = store.get_table("stage", "key", lambda: {"new": [1, 2]})
    assert made.columns["new"] == [1, 2]
    assert read_table(path).columns["new"].tolist() == [1, 2]
    assert store.misses["stage"] == 1
    assert any(f"{path} is damaged" in line for line in said())


@given(st.integers(0, 10_000))
def test_every_flipped_bit_of_a_table_is_found(tmp_path_factory, place: int) -> None:
    root = tmp_path_factory.mktemp("flip")
    Store(root).get_table("stage", "key", lambda: COLUMNS)
    path = root / "stage" / "key.arrow"
    path.write_bytes(flipped(path.read_bytes(), place))
    assert Store(root).get_table("stage", "key", lambda: {"new": [1]}).columns["new"] == [1]


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no manifest"])
def test_a_damaged_folder_is_made_again(tmp_path, damage, said) -> None:
    def make(path):
        (path / "index").write_bytes(b"0123456789")

    file = Store(tmp_path).get_folder("index", "key", make) / "index"
    {
        "flip": lambda: file.write_bytes(flipped(file.read_bytes(), 3)),
        "cut": lambda: file.write_bytes(b"0123"),
        "missing": file.unlink,
        "no manifest": (file.parent / "artifact.json").unlink,
    }[damage]()
    assert (Store(tmp_path).get_folder("index", "key", make) / "index").read_bytes() == b"0123456789"
    assert any("is damaged" in line for line in said())
    assert (Store(tmp_path).get_folder("index", "key", never) / "index").exists()


def test_tables_are_memory_mapped(tmp_path) -> None:
    Store(tmp_path).get_table("stage", "key", lambda: {"x": np.zeros((1000, 64), np.float32)})
    found = Store(tmp_path).get_table("stage", "key", never).columns["x"]
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1
    mapped = (tmp_path / "stage" / "key.arrow").resolve()
    assert str(mapped) in Path("/proc/self/maps").read_text()


# ---- a size limit


def kilobytes(store: Store, *keys: str) -> None:
    for key in keys:
        store.get_table("stage", key, lambda: {"x": np.random.default_rng(0).integers(0, 255, 10_000).astype(np.uint8)})
        time.sleep(0.01)


def kept(root) -> set[str]:
    return {artifact.key for artifact in list_artifacts(root)}


def closed(store: Store) -> None:
    """As when the process that used it has ended."""
    store._lease.release()


def test_what_was_not_used_for_longest_goes_first(tmp_path) -> None:
    old = Store(tmp_path)
    kilobytes(old, "a", "b", "c", "d")
    closed(old)
    reader = Store(tmp_path)
    reader.get_table("stage", "a", never)
    closed(reader)
    assert [artifact.key for artifact in evict_artifacts(tmp_path, 25_000)] == ["b", "c"]
    assert kept(tmp_path) == {"a", "d"}
    assert evict_artifacts(tmp_path, 25_000) == []


def test_what_a_running_study_uses_is_never_removed(tmp_path) -> None:
    old = Store(tmp_path)
    kilobytes(old, "a", "b")
    closed(old)
    running = Store(tmp_path)
    running.get_table("stage", "a", never)
    kilobytes(running, "c")
    assert [artifact.key for artifact in evict_artifacts(tmp_path, 0)] == ["b"]
    assert kept(tmp_path) == {"a", "c"}
    closed(running)
    evict_artifacts(tmp_path, 0)
    assert kept(tmp_path) == set()


def test_a_store_above_its_limit_trims_itself_while_it_writes(tmp_path) -> None:
    old = Store(tmp_path)
    kilobytes(old, *"abcdefgh")
    closed(old)
    store = Store(tmp_path, limit=50_000)
    kilobytes(store, "x")
    assert "x" in kept(tmp_path)
    assert len(kept(tmp_path)) == 4


def test_evicted_vectors_are_encoded_again(tmp_path) -> None:
    store = Store(tmp_path)
    first = np.array(embed_texts(Hashing(64), ["a b", "c"], store).values)
    closed(store)
    assert {artifact.stage for artifact in evict_artifacts(tmp_path, 0)} == {"vectors"}
    assert (embed_texts(Hashing(64), ["a b", "c"], Store(tmp_path)).values == first).all()


def test_what_a_killed_writer_left_is_swept(tmp_path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / ".new-1").write_text("half")
    (tmp_path / "stage" / ".new-2").mkdir()
    evict_artifacts(tmp_path, 10**9)
    # A study that has begun meanwhile may be at work on them.
    assert len(list((tmp_path / "stage").iterdir())) == 2
    long_ago = time.time() - 60
    for name in (".new-1", ".new-2"):
        os.utime(tmp_path / "stage" / name, (long_ago, long_ago))
    evict_artifacts(tmp_path, 10**9)
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_lease_ends_with_its_holder(tmp_path) -> None:
    assert find_oldest_lease(tmp_path) == float("inf")
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert find_oldest_lease(tmp_path) <= time.time()
    first.release()
    assert find_oldest_lease(tmp_path) <= time.time()
    second.release()
    assert find_oldest_lease(tmp_path) == float("inf")
    assert list((tmp_path / ".leases").iterdir()) == []


def test_a_claimed_name_is_left_to_its_claimant(tmp_path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    with one.claim_names(lambda: ["a", "b", "c"], 2) as mine:
        assert mine == ["a", "b"]
        with two.claim_names(lambda: ["a", "b", "c"], 2) as theirs:
            assert theirs == ["c"]
    with two.claim_names(lambda: ["a", "b", "c"], 5) as all_again:
        assert all_again == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["claims.lock"]


# ---- what people see


def test_look_ups_are_counted_exactly_and_added_up(tmp_path) -> None:
    for _ in range(3):
        store = Store(tmp_path)
        for key in ("a", "b", "a"):
            store.get_table("stage", key, lambda: COLUMNS)
        store.get_object("object", "k", object)
        store.save_usage()
        store.save_usage()
    assert read_usage(tmp_path) == {"stage": {"hits": 7, "misses": 2}}


def test_the_command_shows_and_prunes(tmp_path, capsys) -> None:
    store = Store(tmp_path)
    kilobytes(store, "a", "b")
    store.save_usage()
    closed(store)
    main(["--path", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "stage" in shown
    assert "2 artifacts (21" in shown
    main(["prune", "--path", str(tmp_path), "--limit-gb", "0.00001"])
    assert "removed: 2 artifacts" in capsys.readouterr().out
    assert kept(tmp_path) == set()


def test_pruning_by_age(tmp_path) -> None:
    store = Store(tmp_path)
    kilobytes(store, "a", "b")
    closed(store)
    long_ago = time.time() - 10 * 86_400
    os.utime(tmp_path / "stage" / "a.arrow", (long_ago, long_ago))
    main(["prune", "--path", str(tmp_path), "--unused-days", "7"])
    assert kept(tmp_path) == {"b"}


@pytest.mark.parametrize("words", ["store.path={}", "store.path='{}'", "show store.path={}", "store.path={} show"])
def test_a_store_is_named_as_a_study_names_it(tmp_path: Path, monkeypatch, capsys, words: str) -> None:
    Store(tmp_path / "studies/.store").get_table("chunks", "a", lambda: {"x": [1]})
    main([word.format(tmp_path / "studies/.store") for word in words.split()])
    assert "chunks" in capsys.readouterr().out
    main([f"studies_dir={tmp_path}/studies"])
    assert "chunks" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAG_OPT_STORE", raising=False)
    main([])
    assert "prune store.path=studies/.store --limit-gb 1" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words",
    [["--path", "nowhere"], ["prune"], ["burn"], ["prune", "--limit-gb", "much"], ["store.limit=1"], ["show", "prune"]],
)
def test_a_wrong_command_is_said_and_removes_nothing(tmp_path, monkeypatch, capsys, words) -> None:
    monkeypatch.setenv("RAG_OPT_STORE", str(tmp_path))
    kilobytes(Store(tmp_path), "a")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert kept(tmp_path) == {"a"}


def test_a_failed_making_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.get_table("stage", "key", lambda: {"x": [1 // 0]})
    with pytest.raises(ZeroDivisionError):
        store.get_folder("index", "key", lambda path: [(path / "half").write_text("x"), 1 // 0])
    assert not [path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not (store.root / "index" / "key").exists()


def test_an_unwritable_store_is_said(tmp_path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(StoreError, match="can't be read or written"):
        Store(tmp_path / "store").get_table("stage", "key", lambda: COLUMNS)


def test_a_store_without_a_folder_lives_in_memory() -> None:
    store = Store()
    store.get_table("stage", "key", lambda: COLUMNS)
    assert store.get_table("stage", "key", never).columns["text"] == ["a", "ü", ""]
    folder = store.get_folder("index", "key", lambda path: (path / "f").write_text("x"))
    assert (store.get_folder("index", "key", never) / "f").read_text() == "x"
    assert folder.is_dir()


def test_a_text_is_embedded_once_per_encoder_whatever_the_chunking(tmp_path, monkeypatch) -> None:
    seen: list[str] = []
    encode = Hashing.encode
    monkeypatch.setattr(Hashing, "encode", lambda self, texts: [seen.extend(texts), encode(self, texts)][1])
    store = Store(tmp_path)
    first = embed_texts(Hashing(64), ["a b", "c", "a b"], store).values
    assert sorted(seen) == ["a b", "c"]
    embed_texts(Hashing(64), ["c", "d"], store)
    again = embed_texts(Hashing(64), ["a b", "c", "a b"], Store(tmp_path)).values
    assert sorted(seen) == ["a b", "c", "d"]
    assert (again == first).all()
    embed_texts(Hashing(32), ["c"], store)
    assert len(seen) == 4


def test_columns_without_rows_come_back(tmp_path) -> None:
    empty = {"text": [], "x": np.zeros((0, 3), np.float32), "n": np.zeros(0, np.int32)}
    Store(tmp_path).get_table("stage", "key", lambda: empty)
    found = Store(tmp_path).get_table("stage", "key", never).columns
    assert (found["text"], found["x"].shape, found["n"].shape) == ([], (0, 3), (0,))


def test_of_large_objects_only_the_last_stay(store: Store) -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    for key in ("a", "b", "c", "a", "c"):
        store.get_object("large", key, partial(make, key), keep=2)
        store.get_object("small", key, partial(str, key))
    assert made == ["a", "b", "c", "a"]


def test_threads_may_ask_for_live_objects_at_once(store: Store) -> None:
    """Calls to models do: more objects than are kept, so that each look-up also drops one."""
    few = Store(store.root, live_limit=4)

    def ask(number: int) -> int:
        return few.get_object("thing", str(number % 9), lambda: number % 9, keep=3)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(20_000))) == [number % 9 for number in range(20_000)]


TEXTS = [f"word{number} " * (1 + number % 7) for number in range(600)]


def test_vectors_are_kept_once(tmp_path) -> None:
    values = embed_texts(Hashing(64), TEXTS, Store(tmp_path)).values
    assert sum(artifact.bytes for artifact in list_artifacts(tmp_path)) < 1.4 * values.nbytes
    assert len(list_artifacts(tmp_path)) == 1


def test_a_later_process_opens_one_file_and_looks_for_nothing(tmp_path, monkeypatch) -> None:
    expected = Hashing(64).encode(TEXTS)
    embed_texts(Hashing(64), TEXTS[::3], Store(tmp_path))
    first = embed_texts(Hashing(64), [*TEXTS, *TEXTS[:9]], Store(tmp_path))
    assert np.array_equal(first.values, np.concatenate([expected, expected[:9]]))
    monkeypatch.setattr(EmbeddingCache, "_refresh", never)
    monkeypatch.setattr(Hashing, "encode", never)
    again = embed_texts(Hashing(64), [*TEXTS, *TEXTS[:9]], Store(tmp_path))
    assert np.array_equal(again.values, first.values)
    assert again.seconds == pytest.approx(first.seconds)
    assert not again.values.flags.writeable, "memory-mapped"


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_block_that_is_lost_is_encoded_again(tmp_path, harm: str) -> None:
    expected = np.array(embed_texts(Hashing(64), TEXTS, Store(tmp_path)).values)
    (block,) = (tmp_path / "vectors").rglob("*.arrow")
    if harm == "removed":
        block.unlink()
    else:
        os.truncate(block, block.stat().st_size // 2)
    for _ in range(2):
        assert np.array_equal(embed_texts(Hashing(64), TEXTS, Store(tmp_path)).values, expected)


def test_what_one_corpus_gathers_costs_another_nothing(tmp_path, monkeypatch) -> None:
    """Pieces that hold another's texts stay, and so do the blocks of corpora that are parts of a larger one."""
    part, whole = TEXTS[:100], TEXTS[50:]
    get_embeddings(Hashing(64), TEXTS[:300], Store(tmp_path))
    one = embed_texts(Hashing(64), part, Store(tmp_path))
    assert len(list_artifacts(tmp_path)) > 1
    two = embed_texts(Hashing(64), whole, Store(tmp_path))
    monkeypatch.setattr(Hashing, "encode", never)
    store = Store(tmp_path)
    assert np.array_equal(embed_texts(Hashing(64), part, store).values, one.values)
    assert np.array_equal(embed_texts(Hashing(64), whole, store).values, two.values)
    assert np.array_equal(get_embeddings(Hashing(64), TEXTS, store), np.concatenate([one.values[:50], two.values]))


def test_what_a_store_did_not_write_is_never_removed(tmp_path: Path, capsys) -> None:
    """A folder that is named by mistake, or that holds other things beside the store."""
    Store(tmp_path).get_table("chunks", "a", lambda: {"n": np.arange(9)})
    others = [
        tmp_path / "letters" / "to.txt",
        tmp_path / "photos" / "2026" / "cat.jpg",
        tmp_path / "chunks" / "mine.csv",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    main(["prune", f"store.path={tmp_path}", "--limit-gb", "0"])
    assert "1 artifact" in capsys.readouterr().out
    assert all(path.read_text() == "mine" for path in others)
    main(["forget", f"store.path={tmp_path}"])
    assert not (tmp_path / "replies.db").exists()


def test_a_store_that_can_not_be_read_is_refused_in_one_message(tmp_path: Path, capsys) -> None:
    (tmp_path / "replies.db").mkdir()
    (tmp_path / "replies.db" / "x").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["forget", f"store.path={tmp_path}"])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
