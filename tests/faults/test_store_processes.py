"""The store among processes: one computes and the others wait, and a killed writer is as if it had never begun."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rag_opt.cache.eviction import evict_artifacts, list_artifacts, read_usage
from rag_opt.cache.store import Store
from rag_opt.components.embedders.embedding_cache import embed_texts
from rag_opt.components.embedders.hashing import Hashing

pytestmark = pytest.mark.integration

PREAMBLE = """
import sys, time
from pathlib import Path
import numpy as np
from rag_opt.cache.store import Store
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.embedders.embedding_cache import embed_texts
root = Path(sys.argv[1])
def note(name):
    with open(root.parent / name, "a") as file:
        file.write("x")
"""


def started(program: str, root: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PREAMBLE + program, str(root)], stderr=subprocess.PIPE, text=True)


def ended(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_of_eight_processes_one_computes(tmp_path) -> None:
    """A table, a folder and a set of embeddings, all wanted by all at once; hits and misses are exact."""
    root = tmp_path / "store"
    program = """
def make():
    note("tables"); time.sleep(0.3)
    return {"x": np.arange(100_000)}
def fill(path):
    note("folders"); time.sleep(0.3)
    (path / "file").write_text("whole")
store = Store(root)
while time.time() < float((root.parent / "go").read_text()): time.sleep(0.001)
assert store.get_table("stage", "key", make).columns["x"][-1] == 99_999
assert (store.get_folder("index", "key", fill) / "file").read_text() == "whole"
class Slow(Hashing):
    def encode(self, texts):
        for text in texts: note("texts")
        time.sleep(0.05)
        return super().encode(texts)
texts = [f"text number {i}" for i in range(2_000)]
assert embed_texts(Slow(32), texts, store).values.shape == (2_000, 32)
store.save_usage()
"""
    tmp_path.joinpath("go").write_text(str(time.time() + 6))
    ended([started(program, root) for _ in range(8)])
    assert [len((tmp_path / name).read_text()) for name in ("tables", "folders", "texts")] == [1, 1, 2_000]
    usage = read_usage(root)
    assert (usage["stage"], usage["index"]) == ({"hits": 7, "misses": 1}, {"hits": 7, "misses": 1})


def test_processes_that_want_the_same_texts_share_the_work(tmp_path) -> None:
    root = tmp_path / "store"
    program = """
import os
class Slow(Hashing):
    def encode(self, texts):
        note(f"by-{os.getpid()}"); time.sleep(0.4)
        return super().encode(texts)
texts = [f"text number {i}" for i in range(3_000)]
while time.time() < float((root.parent / "go").read_text()): time.sleep(0.001)
assert embed_texts(Slow(32), texts, Store(root)).values.shape == (3_000, 32)
"""
    tmp_path.joinpath("go").write_text(str(time.time() + 4))
    ended([started(program, root) for _ in range(2)])
    blocks = sorted(len(path.read_text()) for path in tmp_path.glob("by-*"))
    assert len(blocks) == 2
    assert blocks[0] >= 2


def test_kills_while_indexing_leave_nothing_half_built(tmp_path, figure, long: bool) -> None:
    """SIGKILL at random moments of embedding and of writing indexes; whatever is found afterwards is right."""
    root, kills = tmp_path / "store", 50 if long else 15
    program = """
import os, random, signal
import rag_opt.components.embedders.embedding_cache as cache
cache.FIRST_BLOCK = cache.LARGEST_BLOCK = 64
def work():
    store = Store(root)
    texts = [f"text number {i}" for i in range(1_000)]
    values = embed_texts(Hashing(512), texts, store).values
    for i in range(10_000):
        store.get_folder("index", f"{i}", lambda path: [np.save(path / f"part{n}.npy", values[n::4]) for n in range(4)])
        store.get_table("stage", f"{i}", lambda: {"x": values[i % 4 :: 4], "name": texts[i % 4 :: 4]})
chooser, children = random.Random(1), []
for turn in range(kills):
    pid = os.fork()
    if pid == 0:
        work()
    children.append(pid)
    if len(children) > 2:
        # Later ones live longer, so that on a busy machine, too, something is finished before the last kill.
        time.sleep(chooser.uniform(0.02, 0.4) * (1 if turn < 0.6 * kills else 4))
        os.kill(children.pop(0), signal.SIGKILL)
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""
    ended([started(f"kills = {kills}\n{program}", root)])
    texts = [f"text number {i}" for i in range(1_000)]
    expected = Hashing(512).encode(texts)
    store = Store(root)
    assert (embed_texts(Hashing(512), texts, store).values == expected).all()
    found = [artifact for artifact in list_artifacts(root) if artifact.stage in ("index", "stage")]
    assert len(found) > 0.4 * kills
    for artifact in found:
        i = int(artifact.key)
        if artifact.stage == "stage":
            columns = store.get_table("stage", artifact.key, missing).columns
            assert (columns["x"] == expected[i % 4 :: 4]).all()
        else:
            folder = store.get_folder("index", artifact.key, missing)
            assert all((np.load(folder / f"part{n}.npy") == expected[n::4]).all() for n in range(4))
    store._lease.release()
    for path in root.rglob(".new-*"):
        os.utime(path, (0, 0))
    evict_artifacts(root, 10**12)
    assert not list(root.rglob(".new-*"))
    figure(
        "cache writes", f"{kills} kills while embedding and indexing: {len(found)} artifacts found, all of them right"
    )


def missing(*_: object) -> dict:
    raise AssertionError("not there")
